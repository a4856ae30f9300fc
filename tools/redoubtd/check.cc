// SPDX-License-Identifier: GPL-2.0

#include "check.h"

#include <algorithm>
#include <fstream>
#include <memory>

#include <sys/stat.h>

namespace redoubt::agent {

namespace {

// A device's type begins with one of these; the first that fits counts.
struct Rule {
	const char *prefix;
	const char *why;
	bool death_only;
};
constexpr Rule rules[] = {
	{"vfio-", "a passed-through device's state is not QEMU's to carry", false},
	{"vhost-user-", "another process has the device", false},
	{"vhost-vdpa-", "another process or a device has it", false},
	{"vhost-vsock", "connections end, and after the VMM's death the rings are the kernel's", true},
	{"vhost-scsi", "the kernel has the device", false},
	{"ivshmem", "memory that is shared with others", false},
	{"pc-dimm", "memory outside the one RAM file", false},
	{"nvdimm", "memory outside the one RAM file", false},
	{"virtio-mem", "memory outside the one RAM file", false},
	{"virtio-pmem", "memory outside the one RAM file", false},
	{"cxl-", "memory outside the one RAM file", false},
	{"VGA", "its memory is outside the RAM file: -nodefaults -vga none", false},
	{"cirrus-vga", "its memory is outside the RAM file: -nodefaults -vga none", false},
	{"isa-vga", "its memory is outside the RAM file: -nodefaults -vga none", false},
	{"isa-cirrus-vga", "its memory is outside the RAM file: -nodefaults -vga none", false},
	{"secondary-vga", "its memory is outside the RAM file", false},
	{"bochs-display", "its memory is outside the RAM file", false},
	{"ramfb", "its memory is outside the RAM file", false},
	{"qxl", "its memory is outside the RAM file", false},
	{"vmware-svga", "its memory is outside the RAM file", false},
	{"virtio-vga", "its memory is outside the RAM file", false},
	{"virtio-gpu", "what it has on the host is not carried", false},
	{"virtio-9p", "open files of the host are not carried", false},
	{"virtio-scsi", "requests of a dead VMM are not rebuilt", true},
	{"isa-serial", "its registers are as old as the last device state", true},
	{"pci-serial", "its registers are as old as the last device state", true},
	{"hpet", "its registers are as old as the last device state: hpet=off", true},
	{"usb-", "its registers are as old as the last device state", true},
	{"qemu-xhci", "its registers are as old as the last device state", true},
	{"nec-usb-xhci", "its registers are as old as the last device state", true},
	{"nvme", "its registers are as old as the last device state", true},
	{"e1000", "its registers are as old as the last device state", true},
	{"rtl8139", "its registers are as old as the last device state", true},
};

const Json *find(const Facts &facts, const std::string &name)
{
	const auto found = facts.find(name);

	return found == facts.end() || found->second.is_null() ? nullptr : &found->second;
}

std::string text(const Json &json, const char *name)
{
	const auto found = json.is_object() ? json.find(name) : json.end();

	return json.is_object() && found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

// "child<virtio-blk-pci>"
std::string child_type(const Json &property)
{
	const std::string type = text(property, "type");

	return type.starts_with("child<") && type.ends_with(">") ? type.substr(6, type.size() - 7) : "";
}

void look_at_memory(const Facts &facts, const FileFacts &file, const VmConfig &vm, std::vector<Obstacle> &out)
{
	const Json *backends = find(facts, "query-memdev"), *machine = find(facts, "qom-get /machine memory-backend");
	const Json *size = find(facts, "query-memory-size-summary");

	if (!backends || !backends->is_array() || backends->size() != 1) {
		out.push_back({"memory", "must be one -object memory-backend-file, for -machine memory-backend="});
		return;
	}
	const Json &backend = (*backends)[0];
	const std::string id = "memory-backend " + text(backend, "id");
	const Json *type = find(facts, "type of /objects/" + text(backend, "id"));
	if (!type || *type != "memory-backend-file")
		out.push_back({id, "must be a memory-backend-file, x-ignore-shared skips no other"});
	if (!backend.value("share", false))
		out.push_back({id, "must have share=on"});
	if (!machine || !machine->is_string() || machine->get<std::string>() != "/objects/" + text(backend, "id"))
		out.push_back({id, "is not the machine's memory: -machine memory-backend="});
	if (!file.same)
		out.push_back({id, "its mem-path is not the RAM file of the configuration, " + vm.ram});
	else if (backend.value("size", uint64_t{0}) != file.bytes)
		out.push_back({id, "the RAM file has another size"});
	if (!size || size->value("base-memory", uint64_t{0}) != file.bytes || size->value("plugged-memory", uint64_t{0}))
		out.push_back({"memory", "there is more of it than the RAM file has"});
}

void look_at_devices(const Facts &facts, std::vector<Obstacle> &out)
{
	for (const char *place : {"/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached"}) {
		const Json *list = find(facts, std::string("qom-list ") + place);

		if (!list || !list->is_array())
			continue;
		for (const Json &property : *list) {
			const std::string type = child_type(property), name = text(property, "name");
			const auto rule = std::find_if(std::begin(rules), std::end(rules), [&](const Rule &r) { return type.starts_with(r.prefix); });

			if (rule != std::end(rules))
				out.push_back({name.starts_with("device[") ? type : type + " " + name, rule->why, rule->death_only});
			const Json *rom = find(facts, "qom-get " + std::string(place) + "/" + name + " romfile");
			if (rom && rom->is_string() && !rom->get<std::string>().empty())
				out.push_back({type + " " + name, "its ROM is memory outside the RAM file: romfile=", true});
		}
	}
	const Json *pci = find(facts, "query-pci");
	for (const Json &bus : pci && pci->is_array() ? *pci : Json::array()) {
		for (const Json &device : bus.value("devices", Json::array())) {
			const Json info = device.value("class_info", Json::object());

			// 3xx: displays, whatever their name
			if (info.value("class", 0) >> 8 == 3)
				out.push_back({"a display (PCI class " + std::to_string(info.value("class", 0)) + ")",
					       "its memory is outside the RAM file: -nodefaults -vga none"});
		}
	}
}

void look_at_disks(const Facts &facts, const FileFacts &file, std::vector<Obstacle> &out)
{
	const Json *nodes = find(facts, "query-named-block-nodes");

	for (const Json &node : nodes && nodes->is_array() ? *nodes : Json::array()) {
		const Json cache = node.value("cache", Json::object());

		// What one host has in its page cache the other one does not see.
		const std::string driver = text(node, "drv");
		if ((driver == "file" || driver == "host_device") && !node.value("ro", false) && !cache.value("direct", false))
			out.push_back({"disk " + text(node, "file"), "goes through this host's page cache: cache=none"});
		if (cache.value("no-flush", false))
			out.push_back({"disk " + text(node, "file"), "is never flushed: not cache=unsafe"});
	}
	if (file.native_aio)
		out.push_back({"aio=native", "writes of a dead VMM are waited for by nobody: aio=threads or aio=io_uring", true});
}

void look_at_machine(const Facts &facts, const VmConfig &vm, std::vector<Obstacle> &out)
{
	const Json *uuid = find(facts, "query-uuid"), *migrate = find(facts, "query-migrate");
	const Json *sev = find(facts, "query-sev");
	const Json *guard = find(facts, "qom-get /machine confidential-guest-support");

	// What was not answered was not looked at.
	for (const char *name : {"query-migrate", "query-pci", "query-named-block-nodes", "qom-list /machine/peripheral",
				 "qom-list /machine/peripheral-anon", "qom-list /machine/unattached", "qom-list /objects"}) {
		if (!find(facts, name))
			out.push_back({"QEMU", std::string("does not answer ") + name});
	}
	if (!uuid || text(*uuid, "UUID") != to_string(vm.uuid))
		out.push_back({"-uuid", "is not the configured " + to_string(vm.uuid)});
	for (const Json &reason : migrate ? migrate->value("blocked-reasons", Json::array()) : Json::array())
		out.push_back({"QEMU", reason.is_string() ? reason.get<std::string>() : "says it cannot be migrated"});
	if ((sev && sev->value("enabled", false)) || (guard && guard->is_string() && !guard->get<std::string>().empty()))
		out.push_back({"confidential-guest-support", "its memory cannot be read"});
}

// The commands, one after the other; what a QEMU does not have is no fact.
struct Asking {
	Qmp &qmp;
	pid_t pid;
	VmConfig vm;
	Checked done;
	Facts facts;
	std::vector<std::pair<std::string, Json>> todo;
	size_t at = 0;
	bool second = false;
};

FileFacts look_at_file(const Asking &a)
{
	FileFacts out;
	struct stat ours, theirs;
	std::string path;

	for (const auto &[name, value] : a.facts) {
		if (name.starts_with("qom-get /objects/") && name.ends_with(" mem-path") && value.is_string())
			path = value;
	}
	// As that process sees it, which may have another root.
	const std::string there = "/proc/" + std::to_string(a.pid) + "/root" + path;
	if (!stat(a.vm.ram.c_str(), &ours)) {
		out.bytes = static_cast<uint64_t>(ours.st_size);
		out.same = !path.empty() && (!stat(there.c_str(), &theirs) || !stat(path.c_str(), &theirs)) && ours.st_dev == theirs.st_dev &&
			   ours.st_ino == theirs.st_ino;
	}
	std::ifstream maps("/proc/" + std::to_string(a.pid) + "/maps");
	for (std::string line; std::getline(maps, line);)
		out.native_aio |= line.find("/[aio]") != std::string::npos;
	return out;
}

std::string key(const std::string &command, const Json &arguments)
{
	std::string out = command;

	for (const char *name : {"path", "property"}) {
		if (arguments.is_object() && arguments.contains(name))
			out += " " + arguments[name].get<std::string>();
	}
	return out;
}

// What the first answers say is there to ask about
void ask_more(Asking &a)
{
	for (const char *place : {"/machine/peripheral", "/machine/peripheral-anon"}) {
		const Json *list = find(a.facts, std::string("qom-list ") + place);

		for (const Json &property : list && list->is_array() ? *list : Json::array()) {
			if (!child_type(property).empty())
				a.todo.push_back({"qom-get", {{"path", std::string(place) + "/" + text(property, "name")}, {"property", "romfile"}}});
		}
	}
	const Json *objects = find(a.facts, "qom-list /objects");
	for (const Json &property : objects && objects->is_array() ? *objects : Json::array()) {
		const std::string type = child_type(property), path = "/objects/" + text(property, "name");

		a.facts["type of " + path] = type;
		if (type == "memory-backend-file")
			a.todo.push_back({"qom-get", {{"path", path}, {"property", "mem-path"}}});
	}
}

void ask(const std::shared_ptr<Asking> &a)
{
	if (a->at == a->todo.size() && !a->second) {
		a->second = true;
		ask_more(*a);
	}
	if (a->at == a->todo.size()) {
		a->done("", find_obstacles(a->facts, look_at_file(*a), a->vm));
		return;
	}
	const auto [command, arguments] = a->todo[a->at++];
	a->qmp.command(command, arguments, [a, name = key(command, arguments)](const QmpReply &reply) {
		if (!reply.ok && !a->qmp.is_ready()) {
			a->done(reply.error, {});
			return;
		}
		if (reply.ok)
			a->facts[name] = reply.value;
		ask(a);
	});
}

} // namespace

std::vector<Obstacle> find_obstacles(const Facts &facts, const FileFacts &file, const VmConfig &vm)
{
	std::vector<Obstacle> out;

	look_at_machine(facts, vm, out);
	look_at_memory(facts, file, vm, out);
	look_at_devices(facts, out);
	look_at_disks(facts, file, out);
	return out;
}

void check_vm(Qmp &qmp, pid_t pid, const VmConfig &vm, Checked done)
{
	const auto a = std::make_shared<Asking>(Asking{qmp, pid, vm, std::move(done), {}, {}, 0, false});

	for (const char *command : {"query-uuid", "query-migrate", "query-sev", "query-memdev", "query-memory-size-summary", "query-pci"})
		a->todo.push_back({command, {}});
	a->todo.push_back({"query-named-block-nodes", {{"flat", true}}});
	for (const char *path : {"/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached", "/objects"})
		a->todo.push_back({"qom-list", {{"path", path}}});
	for (const char *property : {"memory-backend", "confidential-guest-support"})
		a->todo.push_back({"qom-get", {{"path", "/machine"}, {"property", property}}});
	ask(a);
}

} // namespace redoubt::agent
