// SPDX-License-Identifier: GPL-2.0

#include "primary.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include <lz4.h>

namespace redoubt::agent {

namespace {

constexpr uint32_t state_chunk = 64 * 1024;
// Data that LZ4 does not shrink by an eighth is left alone, and so are the next ones.
constexpr unsigned skip_after_miss = 16;

} // namespace

FileSource::FileSource(const RamFile &ram) : ram_(ram), buffer_(sb::max_frames * page_bytes)
{
}

void FileSource::want(std::span<const sb::Run> runs)
{
	runs_.insert(runs_.end(), runs.begin(), runs.end());
}

bool FileSource::produce(const Take &take)
{
	if (runs_.empty())
		return false;
	sb::Run &run = runs_.front();
	const auto count = static_cast<uint32_t>(std::min<uint64_t>(run.count, sb::max_frames));
	const uint64_t first = run.first;
	uint64_t zero = 0;
	uint32_t kept = 0;

	// A hole need not be read.
	if (ram_.next_data(first) >= first + count) {
		zero = ~0ull >> (64 - count);
	} else {
		ram_.read(first, count, buffer_.data());
		for (uint32_t i = 0; i < count; i++) {
			const uint8_t *page = &buffer_[i * page_bytes];

			if (is_zero(page)) {
				zero |= 1ull << i;
				continue;
			}
			if (kept != i)
				memcpy(&buffer_[kept * page_bytes], page, page_bytes);
			kept++;
		}
	}
	run.first += count;
	run.count -= count;
	if (!run.count)
		runs_.pop_front();
	take(first, count, zero, buffer_.data());
	return true;
}

Sender::Sender(uint64_t frames, PageSource &source, Compress compress, Handlers handlers)
	: frames_(frames), source_(source), compress_(compress), handlers_(std::move(handlers)), image_(hasher_.interface()),
	  image_memory_(sb::Image::bytes_for(frames) / sizeof(uint64_t) + 1),
	  packed_(static_cast<size_t>(LZ4_compressBound(sb::max_frames * page_bytes)))
{
}

void Sender::begin(std::span<const uint8_t> state)
{
	const sb::Run all{0, frames_};

	if (!live_ && image_.begin(&all, 1, image_memory_.data(), image_memory_.size() * sizeof(uint64_t), false) != Status::Ok) {
		handlers_.failed("the RAM file has no size that an image may have");
		return;
	}
	source_.cancel();
	copying_ = false;
	state_ = state;
	state_sent_ = 0;
	progress_ = {};
	progress_.frames = frames_;
	progress_.state = state.size();
	again_ = false;
	busy_ = true;
	want({&all, 1});
}

void Sender::again(std::span<const sb::Run> runs, bool state)
{
	if (!image_.frames()) {
		handlers_.failed("the standby asks for frames of an attempt that is none");
		return;
	}
	for (const sb::Run &run : runs) {
		if (!image_.covers(run.first, run.count)) {
			handlers_.failed("the standby asks for frames that the VM does not have");
			return;
		}
	}
	forget(runs);
	if (state)
		state_sent_ = 0;
	again_ = true;
	busy_ = true;
	want(runs);
}

void Sender::live(uint64_t epoch)
{
	const sb::Run all{0, frames_};

	if (busy_ || copying_)
		cancel();
	live_ = epoch;
	flights_.clear();
	copied_ = {};
	if (epoch && image_.begin(&all, 1, image_memory_.data(), image_memory_.size() * sizeof(uint64_t), false) != Status::Ok)
		throw Error("the RAM file has no size that an image may have");
}

void Sender::forget(std::span<const sb::Run> runs)
{
	for (const sb::Run &run : runs) {
		for (uint64_t i = 0; i < run.count; i++)
			(void)image_.forget(run.first + i);
	}
}

uint64_t Sender::mark()
{
	if (flights_.empty() || flights_.back().first != next_mark_)
		flights_.push_back({next_mark_, {}});
	return next_mark_++;
}

void Sender::confirmed(uint64_t mark)
{
	while (!flights_.empty() && flights_.front().first <= mark)
		flights_.pop_front();
}

std::vector<sb::Run> Sender::lost()
{
	std::vector<sb::Run> out;

	for (const auto &[mark, runs] : flights_)
		out.insert(out.end(), runs.begin(), runs.end());
	flights_.clear();
	forget(out);
	return out;
}

void Sender::copy(std::span<const sb::Run> runs)
{
	copying_ = true;
	want(runs);
}

// In copy()'s name, or begin()'s and again()'s
void Sender::want(std::span<const sb::Run> runs)
{
	try {
		source_.want(runs);
	} catch (const Error &error) {
		cancel();
		handlers_.failed(error.what());
		return;
	}
	pump();
}

void Sender::cancel()
{
	busy_ = copying_ = false;
	source_.cancel();
}

bool Sender::send_state()
{
	uint8_t head[32];

	if (state_sent_ == state_.size())
		return false;
	const uint64_t size = std::min<uint64_t>(state_.size() - state_sent_, state_chunk);
	const uint32_t length = sb::put_state(head, state_.size(), state_sent_);
	handlers_.send(sb::Msg::State, {head, length}, state_.subspan(state_sent_, size));
	if (image_.state(state_.size(), state_sent_, size) != Status::Ok)
		throw Error("the device state has no size that an image may have");
	state_sent_ += size;
	return true;
}

// Hashed as it goes out. What a live image has is left out, and cuts the run.
void Sender::emit(uint64_t first, uint32_t count, uint64_t zero, const uint8_t *pages)
{
	using Clock = std::chrono::steady_clock;
	const Clock::time_point began = Clock::now();
	uint8_t leaf[sb::digest_bytes];
	uint64_t same = 0;
	uint32_t data = 0;

	for (uint32_t i = 0; i < count; i++) {
		const bool none = zero >> i & 1;

		if (!(none ? image_.zero_leaf(leaf) : image_.page_leaf(pages + uint64_t{data} * page_bytes, leaf)))
			throw Error("SHA-256 has failed");
		data += !none;
		if (const uint8_t *had = live_ ? image_.leaf(first + i) : nullptr; had && !memcmp(had, leaf, sizeof(leaf)))
			same |= 1ull << i;
		else if (image_.page(first + i, leaf) != Status::Ok)
			throw Error("a frame that the VM does not have");
	}
	hash_ns_ += static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - began).count());
	hashed_ += count;
	data = 0;
	for (uint32_t i = 0; i < count;) {
		const bool skip = same >> i & 1;
		const uint32_t run_data = data;
		uint32_t end = i;

		for (; end < count && bool(same >> end & 1) == skip; end++)
			data += !(zero >> end & 1);
		if (!skip)
			emit_run(first + i, end - i, zero >> i & ~0ull >> (64 - (end - i)), pages + uint64_t{run_data} * page_bytes);
		else
			(copying_ ? copied_ : progress_).same += end - i;
		i = end;
	}
}

void Sender::emit_run(uint64_t first, uint32_t count, uint64_t zero, const uint8_t *pages)
{
	Progress &progress = copying_ ? copied_ : progress_;
	uint8_t head[32];
	uint32_t data = 0;

	for (uint32_t i = 0; i < count; i++)
		data += !(zero >> i & 1);
	std::span<const uint8_t> bytes(pages, data * page_bytes);
	auto codec = sb::Codec::None;
	// Packing costs CPU and saves link: it pays when the link is what everything waits for.
	const bool pack = compress_ == Compress::lz4 || (compress_ == Compress::automatic && !handlers_.idle());
	if (data && pack && skip_packing_) {
		skip_packing_--;
	} else if (data && pack) {
		const int size = LZ4_compress_default(reinterpret_cast<const char *>(pages), packed_.data(), static_cast<int>(bytes.size()),
						      static_cast<int>(packed_.size()));
		if (size > 0 && static_cast<size_t>(size) < bytes.size() / 8 * 7) {
			codec = sb::Codec::Lz4;
			bytes = {reinterpret_cast<const uint8_t *>(packed_.data()), static_cast<size_t>(size)};
		} else {
			skip_packing_ = compress_ == Compress::lz4 ? 0 : skip_after_miss;
		}
	}
	const uint32_t length = sb::put_pages(head, first, count, zero, codec, static_cast<uint32_t>(bytes.size()));
	handlers_.send(sb::Msg::Pages, {head, length}, bytes);
	progress.data += data;
	progress.zero += count - data;
	progress.raw += uint64_t{data} * page_bytes;
	progress.wire += bytes.size();
	if (again_ && !copying_)
		progress.again += count;
	if (!live_)
		return;
	if (flights_.empty() || flights_.back().first != next_mark_)
		flights_.push_back({next_mark_, {}});
	flights_.back().second.push_back({first, count});
}

// What has to be read and hashed takes longer than the peer would wait for a sign of life; and zeroes, or what the standby has, fill no queue.
bool Sender::pump()
{
	const auto until = Loop::Clock::now() + Loop::turn;

	try {
		while ((busy_ || copying_) && handlers_.has_room()) {
			if (handlers_.later && Loop::Clock::now() > until) {
				handlers_.later();
				return false;
			}
			if (busy_ && send_state())
				continue;
			if (source_.produce([this](uint64_t first, uint32_t count, uint64_t zero, const uint8_t *pages) {
				    emit(first, count, zero, pages);
			    }))
				continue;
			if (source_.finished() && busy_) {
				finish();
			} else if (source_.finished()) {
				copying_ = false;
				handlers_.copied();
			}
			break;
		}
	} catch (const Error &error) {
		cancel();
		handlers_.failed(error.what());
	}
	return true;
}

void Sender::finish()
{
	sb::Digest digest;

	busy_ = false;
	if (image_.digest(state_.data(), &digest) != Status::Ok)
		throw Error("not all frames were read");
	handlers_.sent(digest);
}

} // namespace redoubt::agent
