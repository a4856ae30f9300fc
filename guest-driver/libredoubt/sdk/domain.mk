# SPDX-License-Identifier: GPL-2.0
#
# Builds a domain; Documentation/domain-tutorial.md. In a Makefile of yours:
#
#   DOMAIN := counter                # becomes $(O)/counter.dom
#   DOMAIN_SRCS := counter.c         # C and C++
#   include .../domain.mk
#
# RDT_VECTOR := 1   the domain uses vector registers: each way in and out exchanges them
# DOMAIN_CFLAGS     flags besides, DOMAIN_OBJS   objects besides
# O                 where to build

sdk := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))
sdk-include ?= $(or $(wildcard $(sdk)/../include),$(abspath $(sdk)/../../../include))
O ?= .
DOMAIN_BASE ?= 0x20000000

# A domain has no TLS for a canary (whoever sets FS base could choose what is compared
# with it), nobody who unwinds or relocates, and no indirect branch tracking. An interrupt
# never uses its stack, so a red zone would do: it is off because an author's assembly
# need not know.
domain-flags := -O2 -Wall -Wextra -ffreestanding -fno-stack-protector -fno-pic -fno-pie -mcmodel=small \
	-mno-red-zone -fcf-protection=none -fno-asynchronous-unwind-tables -ffunction-sections -fdata-sections \
	-fno-common -ftls-model=local-exec -I$(sdk-include) $(if $(RDT_VECTOR),,-mgeneral-regs-only)
domain-c := -std=gnu11
domain-cxx := -std=c++20 -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-use-cxa-atexit

domain-objs := $(patsubst %,$(O)/$(DOMAIN).obj/%.o,$(basename $(notdir $(DOMAIN_SRCS))))
domain-rt := $(O)/$(DOMAIN).obj/sdk/start.o $(O)/$(DOMAIN).obj/sdk/runtime.o
vpath %.c $(sort $(dir $(DOMAIN_SRCS)))
vpath %.cc $(sort $(dir $(DOMAIN_SRCS)))

$(O)/$(DOMAIN).dom: $(domain-objs) $(domain-rt) $(DOMAIN_OBJS) $(sdk)/domain.lds
	$(CC) -nostdlib -static -no-pie -Wl,--build-id=none,--gc-sections,-z,noexecstack,--no-warn-rwx-segments \
		-Wl,--orphan-handling=error -Wl,--defsym=__rdt_base=$(DOMAIN_BASE) \
		-T $(sdk)/domain.lds -o $@.tmp $(filter %.o,$^)
	@! objdump -d --no-show-raw-insn $@.tmp | grep -E '%[fg]s:' || { echo >&2 '$@: it uses FS or GS, which are the caller'"'"'s'; exit 1; }
	@$(if $(RDT_VECTOR),true,! objdump -d --no-show-raw-insn $@.tmp | grep -E '%([xyz]mm|mm|st)' || { echo >&2 '$@: it uses vector registers: RDT_VECTOR := 1'; exit 1; })
	@mv $@.tmp $@

$(O)/$(DOMAIN).obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(domain-c) $(domain-flags) $(DOMAIN_CFLAGS) -MMD -MP -c -o $@ $<
$(O)/$(DOMAIN).obj/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(domain-cxx) $(domain-flags) $(DOMAIN_CFLAGS) -MMD -MP -c -o $@ $<
$(O)/$(DOMAIN).obj/sdk/%.o: $(sdk)/%.c
	@mkdir -p $(@D)
	$(CC) $(domain-c) $(domain-flags) -MMD -MP -c -o $@ $<
$(O)/$(DOMAIN).obj/sdk/%.o: $(sdk)/%.S
	@mkdir -p $(@D)
	$(CC) $(domain-flags) -c -o $@ $<

.DELETE_ON_ERROR:
-include $(wildcard $(O)/$(DOMAIN).obj/*.d $(O)/$(DOMAIN).obj/sdk/*.d)
