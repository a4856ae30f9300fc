// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "../lib/client.h"

namespace redoubt::ctl {

// Exit statuses, documented in Documentation/redoubtctl.md.
enum Exit { exit_ok = 0, exit_error = 1, exit_usage = 2, exit_no_module = 3 };

// Where a command does its work.
struct Context {
	client::Sys &sys;
	std::ostream &out;
	bool json = false;
};

struct WatchOptions {
	std::string vm;				// empty: all
	std::optional<uint64_t> since;		// without: what happens from now on
	std::optional<uint64_t> count;
	std::optional<double> timeout_s;
	std::optional<unsigned> type;		// RDT_EV_*
};

// Those not given stay as they are.
struct QuotaOptions {
	std::optional<uint32_t> domains;
	std::optional<uint64_t> frames, total;	// without total: what the others make together
	std::optional<bool> may_export;

	bool any() const { return domains || frames || total || may_export; }
};

struct SecretOptions {
	std::string vm;				// serve: empty: all
	std::vector<std::string> manifests;	// install: one
	std::vector<std::string> values;	// NAME=FILE
	std::optional<uint64_t> id;
	bool any_mode = false;
	double wait_s = 0;			// install: while threads are inside
	std::optional<uint64_t> count;		// serve
	std::optional<double> timeout_s;
};

struct StandbyOptions {
	std::string socket = "/run/redoubt/standby.sock";
	std::string vm;
	std::string boot;			// of the peer, 16 hexadecimal digits
	bool force = false;
	double wait_s = 0;
	std::string name, directory = "/etc/redoubt/keys", show;	// pair
};

struct PlanOptions {
	double battery_s = 0, fixed_s = 5, margin_s = 5, rate_mib = 0;
	std::vector<std::string> vms;		// NAME:MIB[:PRIORITY]
};

int status(Context &ctx);
int attach(Context &ctx, int pid, std::optional<int> vm_fd, const QuotaOptions &quota);
int detach(Context &ctx, const std::string &vm, bool force);
int regions(Context &ctx, const std::string &vm);
int watch(Context &ctx, const WatchOptions &options);
int protect(Context &ctx, const std::string &vm, uint64_t gpa, uint64_t pages, unsigned action, unsigned cls);
int policy(Context &ctx, std::optional<bool> self_attach);

// domain.cc
int domains(Context &ctx, const std::string &vm);
int quota(Context &ctx, const std::string &vm, const QuotaOptions &options);
int destroy(Context &ctx, const std::string &vm, uint64_t id, double wait_s);
int install(Context &ctx, const std::string &vm, uint64_t id, uint64_t address, const std::string &value, bool any_mode,
	    double wait_s);
// @to, @from: a file; empty: standard output, input.
int export_domain(Context &ctx, const std::string &vm, uint64_t id, const std::string &key, bool any_mode,
		  const std::string &to);
int import_domain(Context &ctx, const std::string &vm, std::optional<uint64_t> id, const std::string &key,
		  bool any_mode, const std::string &from);
void change_quota(const client::Vm &vm, const QuotaOptions &options);
// The one sealed domain that was measured so, or with @id. Throws Error if there is none, or several.
rdt_domain_info find_domain(const client::Vm &vm, std::span<const uint8_t> measurement, std::optional<uint64_t> id);
// Asks again, until it is done or the time is up; false: it is not done.
bool insist(const std::function<bool()> &ask, double wait_s);

// device.cc: @bdf is a PCI address
int device_list(Context &ctx);
int device_status(Context &ctx, const std::string &bdf);
int device_bind(Context &ctx, const std::string &bdf);
int device_unbind(Context &ctx, const std::string &bdf);
// @direct: may the device have the guest's queues until a migration begins
// @copy: whose buffer is the copy, "device" or "vcpu"; empty: as it was
int device_migratable(Context &ctx, const std::string &bdf, bool on, std::optional<bool> direct, const std::string &copy);

// secret.cc
int secret_install(Context &ctx, const SecretOptions &options);
int secret_serve(Context &ctx, const SecretOptions &options);

// standby.cc: what redoubtd does
int standby_list(Context &ctx, const StandbyOptions &options);
int standby_status(Context &ctx, const StandbyOptions &options);
int standby_go(Context &ctx, const StandbyOptions &options);
int standby_abort(Context &ctx, const StandbyOptions &options);
int standby_fenced(Context &ctx, const StandbyOptions &options);
int standby_promote(Context &ctx, const StandbyOptions &options);
int standby_check(Context &ctx, const StandbyOptions &options);
int standby_pair(Context &ctx, const StandbyOptions &options);
// plan.cc
int standby_plan(Context &ctx, const PlanOptions &options);

// The whole program: parses the arguments, runs the command, maps what goes
// wrong to one line on @err and an exit status.
int run(client::Sys &sys, int argc, const char *const *argv, std::ostream &out, std::ostream &err);

} // namespace redoubt::ctl
