// SPDX-License-Identifier: GPL-2.0

#include "standby.h"
#include "saved.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <lz4.h>
#include <sys/stat.h>
#include <unistd.h>

namespace redoubt::agent {

namespace {

constexpr size_t usual_state = 8u << 20;
constexpr uint64_t slice_frames = 512;		// between two looks at the link

} // namespace

Receiver::Receiver(Loop &loop, RamFile &ram, std::string state_path)
	: loop_(loop), ram_(ram), state_path_(std::move(state_path)), image_(hasher_.interface()),
	  image_memory_(sb::Image::bytes_for(ram.frames()) / sizeof(uint64_t) + 1), plain_(sb::max_frames * page_bytes),
	  back_(sb::max_frames * page_bytes)
{
	state_.reserve(usual_state);
}

Receiver::~Receiver()
{
	loop_.cancel(next_slice_);
	loop_.cancel(next_look_);
}

std::string Receiver::fits(const sb::Body &begin) const
{
	if (begin.flags & ~sb::begin_live)
		return "the peer is in a mode that is not known here";
	if (begin.ranges != 1 || begin.range(0).first != 0 || begin.range(0).count != ram_.frames())
		return "the primary's memory is of another size: " +
		       std::to_string(begin.ranges ? begin.range(begin.ranges - 1).first + begin.range(begin.ranges - 1).count : 0) +
		       " frames there, " + std::to_string(ram_.frames()) + " here";
	return "";
}

void Receiver::begin()
{
	const sb::Run all{0, ram_.frames()};
	const std::string changed = ram_.changed();

	drop();
	if (!changed.empty())
		throw Error(changed);
	if (image_.begin(&all, 1, image_memory_.data(), image_memory_.size() * sizeof(uint64_t), false) != Status::Ok)
		throw Error("the RAM file has no size that an image may have");
	bytes_ = 0;
}

void Receiver::drop()
{
	loop_.cancel(next_slice_);
	loop_.cancel(next_look_);
	look_ = UINT64_MAX;
	verified_ = nullptr;
	state_.clear();
	unlink(state_path_.c_str());
}

void Receiver::take(sb::Msg msg, const sb::Body &body)
{
	if (msg == sb::Msg::Pages) {
		take_pages(body);
	} else if (msg == sb::Msg::State) {
		if (image_.state(body.total, body.offset, body.data_bytes) != Status::Ok)
			throw Error("a device state out of order");
		if (!body.offset)
			state_.clear();
		state_.insert(state_.end(), body.data, body.data + body.data_bytes);
	} else {
		throw Error(std::string("not expected: ") + sb::msg_name(msg));
	}
	bytes_ += body.data_bytes;
}

void Receiver::take_pages(const sb::Body &body)
{
	const uint8_t *pages = body.data;
	uint32_t data = 0;

	if (!image_.covers(body.first, body.frames))
		throw Error("frames that the VM does not have");
	for (uint32_t i = 0; i < body.frames; i++)
		data += !(body.zero >> i & 1);
	if (body.codec == sb::Codec::Lz4) {
		const int want = static_cast<int>(data * page_bytes);

		if (LZ4_decompress_safe(reinterpret_cast<const char *>(body.data), reinterpret_cast<char *>(plain_.data()),
					static_cast<int>(body.data_bytes), want) != want)
			throw Error("pages that cannot be unpacked");
		pages = plain_.data();
	} else if (body.codec != sb::Codec::None) {
		throw Error("pages packed in a way that is not known here");
	}
	// Runs of either kind, each with one call
	for (uint32_t i = 0; i < body.frames;) {
		const bool zero = body.zero >> i & 1;
		uint32_t end = i + 1;

		while (end < body.frames && bool(body.zero >> end & 1) == zero)
			end++;
		if (zero) {
			ram_.zero(body.first + i, end - i);
		} else {
			ram_.write(body.first + i, end - i, pages);
			pages += (end - i) * page_bytes;
		}
		i = end;
	}
	note(body.first, body.frames, body.zero);
}

// What counts is what lies there, not what was to lie there.
void Receiver::note(uint64_t first, uint32_t count, uint64_t zero)
{
	uint8_t leaf[sb::digest_bytes];

	if (~zero & ~0ull >> (64 - count))
		ram_.read(first, count, back_.data());
	for (uint32_t i = 0; i < count; i++) {
		if (!(zero >> i & 1 ? image_.zero_leaf(leaf) : image_.page_leaf(&back_[i * page_bytes], leaf)) ||
		    image_.page(first + i, leaf) != Status::Ok)
			throw Error("SHA-256 has failed");
	}
}

void Receiver::look_again(std::function<void()> looked)
{
	look_ = 0;
	looked_ = std::move(looked);
	if (!next_look_)
		next_look_ = loop_.after(milliseconds(0), [this] { look_slice(); });
}

void Receiver::look_at(uint64_t frame)
{
	uint8_t leaf[sb::digest_bytes];

	if (!image_.arrived(frame))
		return;
	try {
		ram_.read(frame, 1, back_.data());
		if (image_.page_leaf(back_.data(), leaf) && !memcmp(image_.leaf(frame), leaf, sizeof(leaf)))
			return;
	} catch (const Error &) {
		// It cannot be read: it is lacking.
	}
	(void)image_.forget(frame);
}

void Receiver::look_slice()
{
	next_look_ = 0;
	for (const uint64_t end = std::min(look_ + slice_frames, ram_.frames()); look_ < end; look_++)
		look_at(look_);
	if (looking())
		next_look_ = loop_.after(milliseconds(0), [this] { look_slice(); });
	else if (looked_)
		looked_();
}

bool Receiver::check(const sb::Body &end, sb::Digest *mine)
{
	loop_.cancel(next_look_);
	for (; look_ < ram_.frames(); look_++)
		look_at(look_);
	if (!image_.check(end.end_frames, end.end_state, state_.data(), mine))
		return false;
	save_state();
	return true;
}

Receiver::Lacking Receiver::lacking()
{
	Lacking out;
	sb::Run run;

	for (uint64_t from = 0; image_.lacks(from, &run) == Status::Ok; from = run.first + run.count) {
		if (out.runs.size() == sb::max_ranges) {
			out.flags |= sb::lacks_more;
			break;
		}
		out.runs.push_back(run);
	}
	if (!image_.state_whole())
		out.flags |= sb::lacks_state;
	if (out.runs.empty() && !out.flags) {
		out.runs.push_back({0, ram_.frames()});
		out.flags |= sb::lacks_state;
	}
	return out;
}

void Receiver::save_state() const
{
	// Only for our own restart on a host that stays up: no fsync.
	write_private(state_path_, "", state_);
}

bool Receiver::load_state()
{
	const Fd fd(open(state_path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
	struct stat st;

	if (!fd || fstat(fd.get(), &st) || st.st_size <= 0 || static_cast<uint64_t>(st.st_size) > sb::max_state)
		return false;
	state_.resize(static_cast<size_t>(st.st_size));
	for (size_t done = 0; done < state_.size();) {
		const ssize_t got = read(fd.get(), state_.data() + done, state_.size() - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		done += static_cast<size_t>(got);
	}
	return true;
}

void Receiver::verify(std::function<void(bool whole, const sb::Digest &)> done)
{
	const sb::Run all{0, ram_.frames()};

	loop_.cancel(next_slice_);
	verified_ = std::move(done);
	at_ = 0;
	if (!ram_.changed().empty() || !load_state() ||
	    image_.begin(&all, 1, image_memory_.data(), image_memory_.size() * sizeof(uint64_t), false) != Status::Ok ||
	    image_.state(state_.size(), 0, state_.size()) != Status::Ok)
		at_ = UINT64_MAX;
	next_slice_ = loop_.after(milliseconds(0), [this] { slice(); });
}

void Receiver::slice()
{
	sb::Digest digest{};
	bool whole = false;

	next_slice_ = 0;
	if (at_ != UINT64_MAX) {
		try {
			for (const uint64_t end = std::min(at_ + slice_frames, ram_.frames()); at_ < end;) {
				const auto count = static_cast<uint32_t>(std::min<uint64_t>(end - at_, sb::max_frames));

				note(at_, count, 0);
				at_ += count;
			}
		} catch (const Error &) {
			at_ = UINT64_MAX;
		}
		if (at_ < ram_.frames()) {
			next_slice_ = loop_.after(milliseconds(0), [this] { slice(); });
			return;
		}
		whole = at_ != UINT64_MAX && image_.digest(state_.data(), &digest) == Status::Ok;
	}
	const auto done = std::move(verified_);
	verified_ = nullptr;
	if (done)
		done(whole, digest);
}

} // namespace redoubt::agent
