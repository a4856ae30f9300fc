// SPDX-License-Identifier: GPL-2.0
//
// Behind QEMU's end: the device state that it would have written.

#include "death_state.h"
#include "ringstate.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;

std::vector<uint8_t> DeathWatch::make_state(const Hold &hold)
{
	loop_.cancel(sampler_);
	if (!armed_)
		throw Error(obstacle());
	const auto ran = Loop::Clock::now() - refreshed_;
	QStream stream = with_messages();

	put_kvm(stream, ask_kvm(hold, msrs_));
	put_time(stream, static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(ran).count()));
	for (QSection &section : stream.sections()) {
		if (!section.has("virtio"))
			continue;
		VirtioBlob blob(section.raw("virtio"), section.name);

		for (Queue &q : queues_) {
			if (q.section != section.name)
				continue;
			put_ring(stream, blob, q.index, q.ring, q.watch.get());
		}
	}
	return stream.bytes();
}

KvmAnswers ask_kvm(const Hold &hold, const std::vector<uint32_t> &msrs)
{
	Held held(hold.id());
	KvmAnswers out;

	for (uint32_t i = 0; i < hold.vcpus(); i++) {
		out.vcpus.push_back(held.vcpu(i, msrs));
		if (out.vcpus.back().get<uint32_t>("PENDING_IO")) {
			if (const std::string why = pending_access(hold.vcpu_fds()[i]); !why.empty())
				throw Error("vCPU " + std::to_string(i) + ": " + why);
		}
	}
	out.machine = held.machine();
	return out;
}

void put_kvm(QStream &stream, const KvmAnswers &answers)
{
	put_vcpus(stream, answers.vcpus);
	put_machine(stream, answers.machine);
}

// The VM stood, and QEMU has said what it was: what KVM has said then must be the same, but for the time, and must have a place. So what is
// not carried is found out now, not behind QEMU's death.
void DeathWatch::rehearse()
{
	QStream made = taken_->stream;

	put_kvm(made, taken_->answers);
	differs_ = taken_->stream.differences(made);
	if (const std::string field = contradiction(differs_); !field.empty())
		throw Error("KVM and QEMU do not say the same of " + field);
}

} // namespace redoubt::agent
