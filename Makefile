# SPDX-License-Identifier: GPL-2.0
# Redoubt. `make help` lists the targets.

SHELL := /bin/bash -o pipefail
BUILD ?= build
CACHE := $(or $(REDOUBT_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/redoubt)

# A kernel is known by its first two numbers. For each: where its headers are,
# and the root under which its lib/modules and vmlinuz are. With KDIR= it is that
# one kernel, otherwise those that scripts/setup has put into the cache.
release_of = $(shell sed -n 's/.*UTS_RELEASE "\(.*\)"/\1/p' $(1)/include/generated/utsrelease.h 2>/dev/null)
ifeq ($(MAKECMDGOALS),install)
KDIR ?= /lib/modules/$(shell uname -r)/build
endif
ifdef KDIR
KERNELS := $(shell echo '$(call release_of,$(KDIR))' | cut -d. -f1,2)
kdir = $(abspath $(KDIR))
else
KERNELS := 6.1 6.12
kdir = $(realpath $(CACHE)/kernels/$*/headers)
endif
cached = $(filter $(call release_of,$(kdir)),$(file <$(CACHE)/kernels/$*/version))
root = $(if $(cached),$(CACHE)/kernels/$*,/)

all: modules tools

# Kbuild writes its objects next to the sources. So that two kernels do not share
# them, each builds in $(BUILD)/<kernel>: a mirror of the tree made of symlinks.
mirrored := Kbuild include src uapi guest-driver
mirror-%:
	@[ -n "$(call release_of,$(kdir))" ] || \
		{ echo >&2 "no headers for kernel $*: run 'make setup' or give KDIR="; exit 1; }
	@mkdir -p $(BUILD)/$*
	@cp -rsf $(addprefix $(CURDIR)/,$(wildcard $(mirrored))) $(BUILD)/$*/
	@find $(BUILD)/$* -xtype l -delete

layout-%: mirror-%
	@scripts/gen-layout --kdir $(kdir) --root $(root) --list src/kvm/layout.list \
		--output $(BUILD)/$*/include/generated/kvm_layout.h

# W=1, and a warning of any tool (modpost and objtool only print theirs) is an
# error; the objects go, so that the next make does not pass for having nothing
# to do. Modules need no BTF of their own, and making it wants pahole.
define kbuild
	+$(MAKE) --no-print-directory -C $(kdir) M=$(abspath $(BUILD)/$*/$(1)) W=1 \
		CONFIG_DEBUG_INFO_BTF_MODULES= modules 2>&1 | tee $(BUILD)/$*/$(1)/log
	@if grep -iq 'warning:' $(BUILD)/$*/$(1)/log; then \
		find $(BUILD)/$*/$(if $(1),$(1),src $(BUILD)/$*/redoubt.*o) -name '*.*o' -delete; \
		echo >&2 'warnings are errors'; exit 1; fi
endef

host-%: layout-%
	$(call kbuild)
guest-%: mirror-%
	$(call kbuild,guest-driver)

modules: $(KERNELS:%=host-%) guest
guest: $(KERNELS:%=guest-%)

tools:
	$(if $(wildcard tools/redoubtctl),+$(MAKE) -C tools/redoubtctl)

setup:
	scripts/setup

unit:
	$(MAKE) -C selftests/unit check

check: setup
	$(MAKE) all
	$(MAKE) unit

clean:
	rm -rf $(BUILD)
