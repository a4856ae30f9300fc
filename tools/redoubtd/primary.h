// SPDX-License-Identifier: GPL-2.0
//
// The primary's half of an attempt: a stopped VM's device state and memory become
// messages, as fast as the pages connection takes them.
#pragma once

#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <standby/image.h>

#include "config.h"
#include "loop.h"
#include "memory.h"

namespace redoubt::agent {

// What was sent of an attempt, for people and figures.
struct Progress {
	uint64_t frames = 0;		// of the VM
	uint64_t data = 0, zero = 0;	// frames sent, and those of them that needed no bytes
	uint64_t raw = 0, wire = 0;	// bytes of the data frames, and what they were packed into
	uint64_t again = 0;		// frames the standby has asked for once more
	uint64_t same = 0;		// frames that the standby had already: not sent
	uint64_t state = 0;		// bytes of the device state
};

// Where pages come from: the RAM file, or the module's stream.
class PageSource {
public:
	// @count frames from @first on (at most sb::max_frames); @zero: a bit for each that is
	// zero; @pages: the others, one behind the other.
	using Take = std::function<void(uint64_t first, uint32_t count, uint64_t zero, const uint8_t *pages)>;

	virtual ~PageSource() = default;
	// Begins, or goes on with, what is to be read.
	virtual void want(std::span<const sb::Run> runs) = 0;
	virtual void cancel() = 0;
	// Hands over some frames. False: nothing now; it calls back when there is (netlink),
	// or finished() is true. Throws.
	virtual bool produce(const Take &take) = 0;
	// All that was wanted has been handed over.
	virtual bool finished() const = 0;
	// Of the source's own messages: lost, and asked for again.
	virtual uint64_t lost() const { return 0; }
};

class FileSource : public PageSource {
public:
	explicit FileSource(const RamFile &ram);
	void want(std::span<const sb::Run> runs) override;
	void cancel() override { runs_.clear(); }
	bool produce(const Take &take) override;
	bool finished() const override { return runs_.empty(); }

private:
	const RamFile &ram_;
	std::deque<sb::Run> runs_;
	std::vector<uint8_t> buffer_;
};

class Sender {
public:
	struct Handlers {
		// One message to the pages connection: the body's own bytes and the data behind them.
		std::function<void(sb::Msg, std::span<const uint8_t> head, std::span<const uint8_t> data)> send;
		std::function<bool()> has_room, idle;
		std::function<void(const sb::Digest &)> sent;
		std::function<void(const std::string &why)> failed;
		std::function<void()> copied = {};	// all that copy() was given
		// pump() has had its time and has more to do: others first, and then pump() again. Without it goes on.
		std::function<void()> later = {};
	};

	Sender(uint64_t frames, PageSource &source, Compress compress, Handlers handlers);

	// All of it; of a live image what is another than the standby has, told by its hash. @state
	// stays until the attempt has ended.
	void begin(std::span<const uint8_t> state);
	// What the standby lacks. Only behind begin().
	void again(std::span<const sb::Run> runs, bool state);
	void cancel();
	// begin() or again(), not copy()
	bool busy() const { return busy_; }

	// A live image, of bounded mode: the standby keeps what is sent while the VM runs. It has
	// nothing of this epoch yet. 0: not a live one.
	void live(uint64_t epoch);
	uint64_t live_epoch() const { return live_; }
	// In the background: what of @runs is another than the standby has. One at a time.
	void copy(std::span<const sb::Run> runs);
	bool copying() const { return copying_; }
	// What was sent until now is behind the mark; confirmed: the standby has it.
	uint64_t mark();
	void confirmed(uint64_t mark);
	// The connection has ended: what was not confirmed, and may not be there.
	std::vector<sb::Run> lost();
	// The standby does not have it.
	void forget(std::span<const sb::Run> runs);
	// Of all copy(): frames, and ns that their hashes took
	const Progress &copied() const { return copied_; }
	uint64_t ns_a_frame() const { return hashed_ ? hash_ns_ / hashed_ : 0; }

	// Has it anything to send again of?
	bool begun() const { return image_.frames() != 0; }
	// As much as there is room and time for; to be called when there is room, or more to send. False: its time is over, and it
	// has asked for another turn.
	bool pump();
	const Progress &progress() const { return progress_; }

private:
	void emit(uint64_t first, uint32_t count, uint64_t zero, const uint8_t *pages);
	void emit_run(uint64_t first, uint32_t count, uint64_t zero, const uint8_t *pages);
	void want(std::span<const sb::Run> runs);
	bool send_state();
	void finish();

	uint64_t frames_;
	PageSource &source_;
	Compress compress_;
	Handlers handlers_;
	Hasher hasher_;
	sb::Image image_;
	std::vector<uint64_t> image_memory_;
	std::vector<char> packed_;
	std::span<const uint8_t> state_;
	uint64_t state_sent_ = 0;
	bool busy_ = false, again_ = false, copying_ = false;
	uint64_t live_ = 0;
	// Sent for a live image and not confirmed, by mark
	std::deque<std::pair<uint64_t, std::vector<sb::Run>>> flights_;
	uint64_t next_mark_ = 1, hash_ns_ = 0, hashed_ = 0;
	Progress copied_;
	unsigned skip_packing_ = 0;	// messages until LZ4 is tried again
	Progress progress_;
};

} // namespace redoubt::agent
