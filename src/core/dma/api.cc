// SPDX-License-Identifier: GPL-2.0
/* The models' C face: include/redoubt/dma.h. Which device has which model is decided here. */
#include "nvme.h"

using namespace redoubt;
using namespace redoubt::dma;

struct rdt_model {
	Model &m;
};

#if !__STDC_HOSTED__
/* The ABI's name for what stands where a class has no function; nobody gets there. */
extern "C" void __cxa_pure_virtual(); // NOLINT(bugprone-reserved-identifier)
extern "C" void __cxa_pure_virtual()  // NOLINT(bugprone-reserved-identifier)
{
	__builtin_trap();
}
#endif

namespace {

constexpr u32 class_nvme = 0x010802;

} // namespace

rdt_model *rdt_model_create(void *host, const rdt_dma_info *info, const char **why) noexcept
{
	Model *m = nullptr;

	if (info->class_code == class_nvme)
		m = Nvme::create(host, *info, why);
	else
		*why = "there is no model for this kind of device";
	if (!m)
		return nullptr;

	void *mem = rdt_dma_alloc(sizeof(rdt_model));

	if (!mem) {
		m->destroy();
		*why = "no memory";
		return nullptr;
	}
	return new (mem) rdt_model{*m};
}

void rdt_model_destroy(rdt_model *m) noexcept
{
	m->m.destroy();
	rdt_dma_free(m);
}

rdt_u64 rdt_model_read(rdt_model *m, rdt_u64 off, rdt_u32 len) noexcept
{
	return m->m.read(off, len);
}

void rdt_model_write(rdt_model *m, rdt_u64 off, rdt_u32 len, rdt_u64 value) noexcept
{
	m->m.write(off, len, value);
}

rdt_u32 rdt_model_doorbells(rdt_model *m, rdt_u64 *off) noexcept
{
	return m->m.doorbells(*off);
}

void rdt_model_unshow(rdt_model *m) noexcept
{
	m->m.unshow();
}

void rdt_model_interrupt(rdt_model *m, rdt_u32 vector) noexcept
{
	m->m.interrupt(vector);
}

void rdt_model_later(rdt_model *m) noexcept
{
	m->m.later();
}

void rdt_model_reset(rdt_model *m) noexcept
{
	m->m.reset();
}

int rdt_model_stop(rdt_model *m) noexcept
{
	return m->m.stop();
}

int rdt_model_run(rdt_model *m, int still) noexcept
{
	return m->m.run(still != 0);
}

rdt_u64 rdt_model_state_max(rdt_model *m) noexcept
{
	return m->m.state_max();
}

rdt_s64 rdt_model_save(rdt_model *m, void *buf, rdt_u64 room) noexcept
{
	return m->m.save(buf, room);
}

int rdt_model_load(rdt_model *m, const void *buf, rdt_u64 len) noexcept
{
	return m->m.load(buf, len);
}

void rdt_model_arm(rdt_model *m, int on) noexcept
{
	m->m.arm(on != 0);
}

void rdt_model_get_stats(rdt_model *m, rdt_model_stats *out) noexcept
{
	*out = m->m.stats();
}

const char *rdt_model_blocker(rdt_model *m) noexcept
{
	return m->m.blocker();
}
