# SPDX-License-Identifier: GPL-2.0

SHELL := /bin/bash -o pipefail
BUILD ?= build
CACHE := $(or $(REDOUBT_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/redoubt)

define HELP
make              all: modules and tools
make modules      build/<6.1|6.12>/redoubt*.ko and guest-driver/redoubt_guest.ko
make guest        the guest's driver only; it needs no KVM
make tools        redoubtctl, redoubtd, redoubt-crash
make guest-tools  libredoubt, redoubt-domain, the key service: for the guest
make setup        install and fetch what the build and the lab need (Debian 12)
make unit         tests that need no virtual machine
make lint         sparse on the C part, clang-tidy on the core; needs scripts/setup --long
make check        set up, build, test: 30 minutes at most
make check-long   the full test matrix, with long stress
make demo         watch a guest defend itself; ARCH=npt (AMD) or ept (Intel)
make demo-domains watch a guest's root go for keys in a domain and in code; ARCH= likewise
make demo-migration watch a VM with a passed-through NVMe controller move between two hosts
make demo-standby watch a database outlive the power of its host, which has a UPS and a standby
make bench        measure; writes build/bench.json
make install      redoubt*.ko, redoubtctl, redoubtd and its unit, the udev rule, into this machine
make guest-install   redoubt_guest.ko and its udev rule, into this machine
make guest-tools-install   libredoubt and the key service, with the kit to write domains
make clean

KDIR=   headers of the kernel to build for; without it, both kernels of the lab
BUILD=  where to build, $(BUILD)
DESTDIR=, PREFIX=   where to install
endef

all: modules tools
.PHONY: all modules guest tools guest-tools guest-tools-install setup unit lint check check-long demo demo-domains demo-migration demo-standby bench install guest-install clean help

# ---------------------------------------------------------------------------
# A kernel goes by its first two numbers. kdir is where its headers are, root the
# place under which its lib/modules are: the cache of scripts/setup, or this machine.

ifneq ($(filter install guest-install,$(MAKECMDGOALS)),)
KDIR ?= /lib/modules/$(shell uname -r)/build
endif
release_of = $(shell sed -n 's/.*UTS_RELEASE "\(.*\)"/\1/p' $(1)/include/generated/utsrelease.h 2>/dev/null)
ifdef KDIR
KERNELS := $(or $(shell echo '$(call release_of,$(KDIR))' | cut -d. -f1,2),$(error no kernel headers in $(KDIR)))
kdir = $(realpath $(KDIR))
else
KERNELS := 6.1 6.12
kdir = $(realpath $(CACHE)/kernels/$*/headers)
endif
cached = $(filter $(call release_of,$(kdir)),$(file <$(CACHE)/kernels/$*/version))
root = $(if $(cached),$(CACHE)/kernels/$*,/)

# Kbuild puts objects next to their sources, so each kernel gets a mirror of the
# tree to build in, made of symlinks: $(BUILD)/<kernel>.
mirror-%:
	@[ "$(kdir)" ] || { echo >&2 "kernel $* is not there: run 'make setup' or give KDIR="; exit 1; }
	@mkdir -p $(BUILD)/$*
	@cp -rsf $(addprefix $(CURDIR)/,Kbuild include src uapi guest-driver) $(BUILD)/$*/
	@find $(BUILD)/$* -xtype l -delete

layout-%: mirror-%
	@scripts/gen-layout --kdir $(kdir) --root $(root) --list src/kvm/layout.list \
		--output $(BUILD)/$*/include/generated/kvm_layout.h

# $(1) is the directory of the module in the mirror. W=1, and any tool's warning
# is an error: modpost and objtool only print theirs, so the log is searched, and
# the objects go lest the next make find nothing to do. The modules carry no BTF
# (making it wants pahole and the kernel's image).
kbuild = $(MAKE) --no-print-directory -C $(kdir) M=$(abspath $(BUILD)/$*/$(1)) ARCH=x86 W=1 \
	CONFIG_DEBUG_INFO_BTF_MODULES=
define build_module
	+@$(kbuild) modules 2>&1 | tee $(BUILD)/$*/$(1)/log
	@if grep -i 'warning:' $(BUILD)/$*/$(1)/log | grep -qv '^make'; then \
		find $(BUILD)/$*/$(if $(1),$(1),src $(BUILD)/$*/redoubt.*o) -name '*.*o' -delete; \
		echo >&2 'warnings are errors'; exit 1; fi
endef

host-%: layout-%
	$(call build_module)
guest-%: mirror-%
	$(call build_module,guest-driver)

modules: $(KERNELS:%=host-%) guest
guest: $(KERNELS:%=guest-%)

tools:
	+@for d in redoubtctl redoubtd redoubt-crash; do $(MAKE) --no-print-directory -C tools/$$d O=$(abspath $(BUILD))/tools || exit; done

# What runs in the guest's user space, and in domains
guest-parts := libredoubt keyservice
guest-tools:
	+@for d in $(guest-parts); do $(MAKE) --no-print-directory -s -C guest-driver/$$d O=$(abspath $(BUILD))/guest-tools || exit; done

# ---------------------------------------------------------------------------

setup:
	scripts/setup

# What gen-layout must refuse, tried on the kernels themselves
unit-layout-%: mirror-%
	@scripts/gen-layout --kdir $(kdir) --root $(root) --selftest
unit-core:
	+@$(MAKE) -C selftests/unit BUILD=$(abspath $(BUILD)) check
unit-tools:
	+@for d in redoubtctl redoubtd redoubt-crash; do $(MAKE) --no-print-directory -C tools/$$d O=$(abspath $(BUILD))/tools check || exit; done
unit-guest-tools:
	+@for d in $(guest-parts); do \
		$(MAKE) --no-print-directory -s -C guest-driver/$$d O=$(abspath $(BUILD))/guest-tools check || exit; done

unit:
	+@mkdir -p $(BUILD); $(MAKE) -ks $(KERNELS:%=unit-layout-%) unit-core unit-tools unit-guest-tools | tee $(BUILD)/unit.log || \
		grep -q '^not ok' $(BUILD)/unit.log || echo 'not ok - all unit tests were built and run' | tee -a $(BUILD)/unit.log
	@awk '/^ok / { ok++ } /^not ok / { bad++ } END { \
		printf "%d passed, %d failed\n", ok, bad; exit bad || !ok }' $(BUILD)/unit.log

# The checkers' warnings are errors. C=2 looks at every file and rebuilds none. No flags
# of ours go along: with -s nobody would say which files were looked at.
define sparse
	@MAKEFLAGS= $(kbuild) C=2 CHECK=sparse modules >$(BUILD)/$*/$(1)/lint.log 2>&1 && \
		grep -q 'CHECK ' $(BUILD)/$*/$(1)/lint.log && \
		! grep -E 'warning:|error:' $(BUILD)/$*/$(1)/lint.log || \
		{ tail -n 5 $(BUILD)/$*/$(1)/lint.log; exit 1; }
endef
lint-%: host-% guest-%
	$(call sparse)
	$(call sparse,guest-driver)
	@echo "sparse, kernel $*: $$(cat $(BUILD)/$*{,/guest-driver}/lint.log | grep -c 'CHECK ') files, no warning"
lint-core:
	+@$(MAKE) -s --no-print-directory -C selftests/unit BUILD=$(abspath $(BUILD)) tidy
	@echo 'clang-tidy, src/core: no warning'
lint: $(KERNELS:%=lint-%) lint-core

check: setup
	+@$(MAKE) --no-print-directory all
	@selftests/run --short --unit $(RUN)

check-long:
	scripts/setup --long
	+@$(MAKE) --no-print-directory all
	@selftests/run --long --unit $(RUN)

ARCH ?= npt
demo demo-domains demo-migration demo-standby:
	@scripts/$@ --arch $(ARCH)

bench: setup
	+@$(MAKE) --no-print-directory all
	selftests/bench/run --output $(BUILD)/bench.json

# ---------------------------------------------------------------------------

install-%: host-%
	+$(call kbuild) $(modules_install)
guest-install-%: guest-%
	+$(call kbuild,guest-driver) $(modules_install)
modules_install = CONFIG_MODULE_SIG_ALL= INSTALL_MOD_STRIP=1 INSTALL_MOD_PATH=$(DESTDIR) modules_install

install: $(KERNELS:%=install-%) tools
	+for d in redoubtctl redoubtd redoubt-crash; do $(MAKE) -C tools/$$d O=$(abspath $(BUILD))/tools install || exit; done
	install -D -m 644 scripts/redoubtd.service $(DESTDIR)/usr/lib/systemd/system/redoubtd.service
	install -D -m 644 scripts/redoubt-crash.service $(DESTDIR)/usr/lib/systemd/system/redoubt-crash.service
	install -D -m 644 scripts/60-redoubt.rules $(DESTDIR)/usr/lib/udev/rules.d/60-redoubt.rules
	install -D -m 755 scripts/redoubt-vm $(DESTDIR)/usr/lib/ocf/resource.d/redoubt/redoubt-vm
	install -D -m 755 scripts/redoubt-notify $(DESTDIR)$(or $(PREFIX),/usr/local)/sbin/redoubt-notify
guest-install: $(KERNELS:%=guest-install-%)
	install -D -m 644 scripts/61-redoubt-guest.rules $(DESTDIR)/usr/lib/udev/rules.d/61-redoubt-guest.rules
guest-tools-install: guest-tools
	+@for d in $(guest-parts); do $(MAKE) -C guest-driver/$$d O=$(abspath $(BUILD))/guest-tools install || exit; done

clean:
	rm -rf $(BUILD)

help:
	$(info $(HELP))
	@:
