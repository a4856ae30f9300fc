// SPDX-License-Identifier: GPL-2.0
#include "tap.h"
#include "vmm.h"
int main(void){ struct vm *vm = vm_create(64<<20, 1, 0); uint64_t r = vcpu_call(&vm->vcpu[0], g_store, GUEST_FREE, 0x1234); is(r,-1,"store"); is(vm_u64(vm,GUEST_FREE),0x1234,"val"); if(!vcpu_done(&vm->vcpu[0])) vcpu_explain(&vm->vcpu[0]);
r=vcpu_call(&vm->vcpu[0], g_hc, RDT_HC_VERSION); is(r,1,"version"); return tap_end(); }
