// SPDX-License-Identifier: GPL-2.0
/* Segments at the border of a domain of ring 3: Documentation/domains.md. */
#include "redoubt.h"

#include "cpu.h"

RDT_IMPORT(kvm_amd, svm_get_segment, RDT_SVM);
RDT_IMPORT(kvm_amd, svm_set_segment, RDT_SVM);
RDT_IMPORT(kvm_intel, vmx_get_segment, RDT_VMX);
RDT_IMPORT(kvm_intel, vmx_set_segment, RDT_VMX);

enum { CALLER, INSIDE };

/* CS and SS are the caller's all the time: only by SYSCALL and SYSENTER does the inside get others. */
struct segments {
	struct kvm_segment cs, ss;
	u64 base[2][2];		/* FS and GS */
};

void *rdt_port_segments_alloc(void *host)
{
	return rdt_port_alloc(sizeof(struct segments));
}

void rdt_port_segments_free(void *host, void *room)
{
	memzero_explicit(room, sizeof(struct segments));
	rdt_port_free(room);
}

static void get_segment(struct kvm_vcpu *vcpu, struct kvm_segment *s, int which)
{
	if (rdt_is_vmx)
		rdt_call(vmx_get_segment)(vcpu, s, which);
	else
		rdt_call(svm_get_segment)(vcpu, s, which);
}

static void set_segment(struct kvm_vcpu *vcpu, struct kvm_segment *s, int which)
{
	if (rdt_is_vmx)
		rdt_call(vmx_set_segment)(vcpu, s, which);
	else
		rdt_call(svm_set_segment)(vcpu, s, which);
}

void rdt_port_segments(void *hv, void *room, enum rdt_vector op)
{
	const bool in = op == RDT_VEC_ENTER || op == RDT_VEC_RESUME;
	struct kvm_vcpu *vcpu = hv;
	struct segments *s = room;
	u64 base[2];

	rdt_cpu_get_bases(vcpu, base);
	if (op != RDT_VEC_LEAVE)
		memcpy(s->base[in ? CALLER : INSIDE], base, sizeof(base));
	if (op == RDT_VEC_ENTER)
		memset(s->base[INSIDE], 0, sizeof(base));
	rdt_cpu_set_bases(vcpu, s->base[in ? INSIDE : CALLER]);
	if (in) {
		get_segment(vcpu, &s->cs, VCPU_SREG_CS);
		get_segment(vcpu, &s->ss, VCPU_SREG_SS);
	} else if (rdt_cpu_cpl(vcpu) != 3) {
		set_segment(vcpu, &s->cs, VCPU_SREG_CS);
		set_segment(vcpu, &s->ss, VCPU_SREG_SS);
	}
}
