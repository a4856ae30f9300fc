// SPDX-License-Identifier: GPL-2.0
//
// A VM's journal on the disk: STATE/VM.journal. What its records mean and where they
// go is src/core/standby/journal.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <standby/journal.h>

#include "../lib/sys.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;
using client::Error;
using client::Fd;

// Nobody else may have the directory's journals open for writing.
class StateDirectory {
public:
	// Makes it if it is not there (0700). Throws, also if another agent has it.
	explicit StateDirectory(const std::string &path);
	const std::string &path() const { return path_; }

private:
	std::string path_;
	Fd lock_;
};

class JournalFile {
public:
	// Throws if it cannot be made or read, or holds something but no whole record:
	// then nothing is known about the VM, and nobody may act.
	JournalFile(const StateDirectory &directory, const std::string &vm);

	// nullptr: the VM was never here.
	const sb::Record *last() const { return known_ ? &journal_.last() : nullptr; }
	// With @sync: on the disk when it returns. Throws; then the file is to be left alone.
	void write(const sb::Record &record, bool sync);

private:
	std::string path_;
	Fd fd_;
	sb::Journal journal_;
	bool known_ = false;
};

// Of this host, from /proc/sys/kernel/random/boot_id, or another file of that form (tests).
uint64_t read_boot(const std::string &path);

} // namespace redoubt::agent
