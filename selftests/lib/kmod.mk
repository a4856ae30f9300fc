# SPDX-License-Identifier: GPL-2.0
# Included by the Makefile of a test that has a kernel module, $(KMOD), in its directory: build/<kernel>/selftests/$(KMOD)/*.ko
SHELL := /bin/bash -o pipefail
TOP := $(abspath ../..)
BUILD ?= $(TOP)/build
KERNELS ?= 6.1 6.12

# As in the top Makefile: a mirror a kernel, W=1, and a warning is an error.
kmod-%:
	@mkdir -p $(BUILD)/$*/selftests
	@cp -rsf $(TOP)/selftests/$(KMOD) $(BUILD)/$*/selftests/
	@find $(BUILD)/$*/selftests/$(KMOD) -xtype l -delete
	+@$(MAKE) --no-print-directory -C $$($(TOP)/scripts/setup --kdir $*) \
		M=$(BUILD)/$*/selftests/$(KMOD) W=1 CONFIG_DEBUG_INFO_BTF_MODULES= modules 2>&1 | \
		tee $(BUILD)/$*/selftests/$(KMOD)/log
	@if grep -i 'warning:' $(BUILD)/$*/selftests/$(KMOD)/log | grep -qv '^make'; then \
		rm -f $(BUILD)/$*/selftests/$(KMOD)/*.*o; echo >&2 'warnings are errors'; exit 1; fi
