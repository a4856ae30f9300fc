// SPDX-License-Identifier: GPL-2.0

#include "primary.h"

#include <algorithm>
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

	if (image_.begin(&all, 1, image_memory_.data(), image_memory_.size() * sizeof(uint64_t), false) != Status::Ok) {
		handlers_.failed("the RAM file has no size that an image may have");
		return;
	}
	source_.cancel();
	state_ = state;
	state_sent_ = 0;
	progress_ = {};
	progress_.frames = frames_;
	progress_.state = state.size();
	again_ = false;
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
		for (uint64_t i = 0; i < run.count; i++)
			(void)image_.forget(run.first + i);
	}
	if (state)
		state_sent_ = 0;
	again_ = true;
	want(runs);
}

void Sender::want(std::span<const sb::Run> runs)
{
	busy_ = true;
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
	busy_ = false;
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

void Sender::emit(uint64_t first, uint32_t count, uint64_t zero, const uint8_t *pages)
{
	uint8_t leaf[sb::digest_bytes], head[32];
	uint32_t data = 0;

	for (uint32_t i = 0; i < count; i++) {
		const bool none = zero >> i & 1;

		if (!(none ? image_.zero_leaf(leaf) : image_.page_leaf(pages + uint64_t{data} * page_bytes, leaf)))
			throw Error("SHA-256 has failed");
		if (image_.page(first + i, leaf) != Status::Ok)
			throw Error("a frame that the VM does not have");
		data += !none;
	}
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
	progress_.data += data;
	progress_.zero += count - data;
	progress_.raw += uint64_t{data} * page_bytes;
	progress_.wire += bytes.size();
	if (again_)
		progress_.again += count;
}

void Sender::pump()
{
	try {
		while (busy_ && handlers_.has_room()) {
			if (send_state())
				continue;
			if (source_.produce([this](uint64_t first, uint32_t count, uint64_t zero, const uint8_t *pages) {
				    emit(first, count, zero, pages);
			    }))
				continue;
			if (source_.finished())
				finish();
			return;
		}
	} catch (const Error &error) {
		cancel();
		handlers_.failed(error.what());
	}
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
