// SPDX-License-Identifier: GPL-2.0
//
// A virtqueue whose device died, put right in the device state: of a killed QEMU, or of a host that has panicked.
#pragma once

#include <standby/rings.h>

#include "kvmstate.h"
#include "virtioblob.h"

namespace redoubt::agent {

// Behind put_vcpu() of all. @watch: of a device that completes out of order, as of its last look; else nullptr. What is outstanding is
// written into the ring. Throws: which requests are is not known.
void put_ring(QStream &stream, VirtioBlob &blob, unsigned index, const standby::Ring &ring, standby::RingWatch *watch);

} // namespace redoubt::agent
