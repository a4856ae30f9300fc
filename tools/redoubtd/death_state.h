// SPDX-License-Identifier: GPL-2.0
//
// What is asked of KVM for a VM that stands, or whose QEMU is dead.
#pragma once

#include "death.h"
#include "held.h"
#include "kvmstate.h"
#include "qstream.h"
#include "virtioblob.h"

namespace redoubt::agent {

struct KvmAnswers {
	std::vector<KvmItems> vcpus;
	KvmItems machine;
};

// Throws: no answer, or a vCPU in the middle of an access that cannot be made good.
KvmAnswers ask_kvm(const Hold &hold, const std::vector<uint32_t> &msrs);
// Throws: it has no place.
void put_kvm(QStream &stream, const KvmAnswers &answers);

struct DeathWatch::Taken {
	Taken(QStream s, KvmAnswers a) : stream(std::move(s)), answers(std::move(a)) {}

	QStream stream;
	KvmAnswers answers;
};

} // namespace redoubt::agent
