// SPDX-License-Identifier: GPL-2.0
/*
 * Installing the hooks, or refusing to with one line that says why.
 *
 * The offsets and prototypes this module was compiled with come from the BTF of
 * one build of kvm.ko and its vendor module (scripts/gen-layout). What is loaded
 * must be that build, bit for bit: the build-ids are compared before anything
 * is touched.
 */
#include "redoubt.h"

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/utsname.h>

#include "hook.h"

DEFINE_PER_CPU(long, rdt_inside);

static struct rdt_hook *const hooks[] = {
	/*
	 * First one that is PERMANENT: it is refused when ftrace is switched off, and
	 * a direct call that comes and goes meanwhile leaves ftrace with a record
	 * that makes it give up for good.
	 */
	&rdt_hook_kvm_arch_commit_memory_region,
	/* Then the ends of things, so that nothing is seen that is not cleaned up. */
	&rdt_hook_kvm_arch_destroy_vm,
	&rdt_hook_kvm_mmu_load,
	&rdt_hook_make_spte,
	&rdt_hook_kvm_mmu_hugepage_adjust,
	&rdt_hook_make_huge_page_split_spte,
	&rdt_hook_write_emulate,
	&rdt_hook_emulator_cmpxchg_emulated,
	&rdt_hook___kvm_write_guest_page,
	&rdt_hook_kvm_gfn_to_hva_cache_init,
	&rdt_hook_kvm_gpc_activate,
#ifdef RDT_HAVE_kvm_vcpu_gfn_to_hva_prot
	&rdt_hook_kvm_vcpu_gfn_to_hva_prot,
#else
	&rdt_hook_gfn_to_hva_memslot_prot,
#endif
	&rdt_hook_svm_smi_allowed,
	&rdt_hook_vmx_smi_allowed,
	&rdt_hook_svm_apic_init_signal_blocked,
	&rdt_hook_vmx_apic_init_signal_blocked,
	&rdt_hook_kvm_vcpu_unmap,
	&rdt_hook_kvm_vcpu_map,
	&rdt_hook_kvm_mmu_free_obsolete_roots,
	&rdt_hook_kvm_arch_vcpu_put,
	&rdt_hook_gp_interception,
	&rdt_hook_handle_exception_nmi,
	&rdt_hook_fpu_swap_kvm_fpstate,
	&rdt_hook_svm_handle_exit,
	&rdt_hook_vmx_handle_exit,
	&rdt_hook_kvm_mmu_page_fault,
	&rdt_hook_x86_emulate_instruction,
	&rdt_hook_kvm_emulate_hypercall,
};

/* All of layout.list: one that is left out would be a call of nothing. */
#define RDT_IMPORT_DESC(_name) &rdt_import_desc_##_name,
static struct rdt_import *const imports[] = { RDT_CALLS(RDT_IMPORT_DESC) };

#ifdef RDT_HAVE_tdp_mmu_enabled
bool *rdt_data_tdp_mmu_enabled;
#endif

/* kallsyms_lookup_name is not exported. A kprobe tells where it is. */
typedef unsigned long lookup_fn(const char *name);
DEFINE_STATIC_CALL_NULL(rdt_lookup, lookup_fn);

static int find_lookup(void)
{
	/* Not armed, so that ftrace has nothing to do with it. */
	struct kprobe kp = { .symbol_name = "kallsyms_lookup_name", .flags = KPROBE_FLAG_DISABLED };
	int r = register_kprobe(&kp);

	if (r) {
		pr_err("cannot find the kernel's symbols (%d)\n", r);
		return r;
	}
	/* Behind a sealed ENDBR where there is one: right for a direct call. */
	static_call_update(rdt_lookup, (lookup_fn *)kp.addr);
	unregister_kprobe(&kp);
	return 0;
}

static unsigned long find(const char *module, const char *name)
{
	char sym[96];

	if (!strcmp(module, "vmlinux"))
		return static_call(rdt_lookup)(name);
	snprintf(sym, sizeof(sym), "%s:%s", module, name);
	return static_call(rdt_lookup)(sym);
}

static bool applies(enum rdt_vendor v)
{
	return v == RDT_ANY || (v == RDT_VMX) == rdt_is_vmx;
}

/* Compare a loaded module's build-id with the one this module was made for. */
static int check_build(const char *module, const u8 want[20])
{
	char path[64];
	u8 note[36];
	struct file *f;
	loff_t pos = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/module/%s/notes/.note.gnu.build-id", module);
	f = filp_open(path, O_RDONLY, 0);
	if (IS_ERR(f)) {
		pr_err("%s is not loaded, or has no build-id\n", module);
		return -ENODEV;
	}
	n = kernel_read(f, note, sizeof(note), &pos);
	fput(f);
	/* Header (12 bytes), "GNU\0", 20 bytes of SHA-1. */
	if (n == sizeof(note) && !memcmp(note + 16, want, 20))
		return 0;
	pr_err("%s is another build (%*phN) than this module was made for (%*phN)\n", module,
	       n == sizeof(note) ? 20 : 0, note + 16, 20, want);
	return -ENOEXEC;
}

static int check_kernel(void)
{
	static const u8 id_kvm[] = RDT_BUILD_ID_kvm;
	static const u8 id_intel[] = RDT_BUILD_ID_kvm_intel;
	static const u8 id_amd[] = RDT_BUILD_ID_kvm_amd;
	int r;

	if (strcmp(utsname()->release, RDT_KERNEL_RELEASE)) {
		pr_err("unknown kernel %s, made for %s\n", utsname()->release, RDT_KERNEL_RELEASE);
		return -ENOEXEC;
	}
	r = check_build("kvm", id_kvm);
	if (!r)
		r = rdt_is_vmx ? check_build("kvm_intel", id_intel) : check_build("kvm_amd", id_amd);
	return r;
}

static int resolve(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		struct rdt_hook *h = hooks[i];

		if (!applies(h->vendor))
			continue;
		h->addr = find(h->module, h->name);
		if (!h->addr) {
			pr_err("hook target %s is missing\n", h->name);
			return -ENOENT;
		}
		/* The original starts behind ftrace's five-byte call. */
		if (h->key)
			__static_call_update(h->key, h->tramp,
					     (void *)(h->addr + h->fentry + MCOUNT_INSN_SIZE));
	}
#ifdef RDT_HAVE_tdp_mmu_enabled
	rdt_data_tdp_mmu_enabled = (bool *)find("kvm", "tdp_mmu_enabled");
	if (!rdt_data_tdp_mmu_enabled) {
		pr_err("variable tdp_mmu_enabled is missing\n");
		return -ENOENT;
	}
#endif
	for (i = 0; i < ARRAY_SIZE(imports); i++) {
		unsigned long addr;

		if (!applies(imports[i]->vendor))
			continue;
		addr = find(imports[i]->module, imports[i]->name);
		if (!addr) {
			pr_err("function %s is missing\n", imports[i]->name);
			return -ENOENT;
		}
		__static_call_update(imports[i]->key, imports[i]->tramp, (void *)addr);
	}
	return 0;
}

static int install_one(struct rdt_hook *h)
{
	int r;

	r = ftrace_set_filter_ip(&h->ops, h->addr + h->fentry, 0, 0);
	if (r) {
		pr_err("%s cannot be traced (%d)\n", h->name, r);
		return r;
	}
	if (h->direct) {
		r = rdt_register_direct(&h->ops, (unsigned long)h->direct);
	} else {
		/* PERMANENT: kernel.ftrace_enabled=0 is refused while one of these is in. */
		h->ops.func = h->func;
		h->ops.flags |= FTRACE_OPS_FL_PERMANENT;
		r = register_ftrace_function(&h->ops);
	}
	if (r) {
		pr_err("%s: %s (%d)\n", h->name,
		       r == -EBUSY ? "another owner replaces it (livepatch?), or ftrace is off" :
		       "cannot be hooked", r);
		ftrace_set_filter_ip(&h->ops, h->addr + h->fentry, 1, 0);
		return r;
	}
	h->installed = true;
	return 0;
}

/*
 * After the hooks are out no CPU enters a hook. A task may still be in one, or
 * on the few instructions before it counts itself or after it has: tasks RCU
 * waits for the latter two, the counter for the first (an original may sleep).
 */
static void drain(void)
{
	long sum;
	int cpu;

	synchronize_rcu_tasks();
	for (;;) {
		sum = 0;
		for_each_possible_cpu(cpu)
			sum += READ_ONCE(*per_cpu_ptr(&rdt_inside, cpu));
		if (!sum)
			break;
		schedule_timeout_uninterruptible(1);
	}
	synchronize_rcu_tasks();
}

void rdt_hooks_remove(void)
{
	int i;

	for (i = ARRAY_SIZE(hooks) - 1; i >= 0; i--) {
		if (!hooks[i]->installed)
			continue;
		if (hooks[i]->direct)
			rdt_unregister_direct(&hooks[i]->ops, (unsigned long)hooks[i]->direct);
		else
			unregister_ftrace_function(&hooks[i]->ops);
		ftrace_free_filter(&hooks[i]->ops);
		hooks[i]->installed = false;
	}
	drain();
}

int rdt_hooks_install(void)
{
	int i, r;

	r = check_kernel();
	if (!r)
		r = find_lookup();
	if (!r)
		r = resolve();
	if (r)
		return r;
	for (i = 0; i < ARRAY_SIZE(hooks) && !r; i++)
		if (applies(hooks[i]->vendor))
			r = install_one(hooks[i]);
	if (r)
		rdt_hooks_remove();
	return r;
}

const char *rdt_hooks_silent(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		if (hooks[i]->selftest && applies(hooks[i]->vendor) && !READ_ONCE(hooks[i]->fired))
			return hooks[i]->name;
	return NULL;
}
