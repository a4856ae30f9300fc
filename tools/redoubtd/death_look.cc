// SPDX-License-Identifier: GPL-2.0
//
// Looks at a QEMU that lives: is what was kept of it still what it is?

#include "death.h"

#include <algorithm>

#include "log.h"
#include "virtioblob.h"

namespace redoubt::agent {

namespace {

// When a refresh that came to nothing, or not to much, is tried again: each time later, for it stops the VM.
constexpr milliseconds try_again{10'000};

std::string text_of(const Json &json, const char *key)
{
	const auto found = json.is_object() ? json.find(key) : json.end();

	return json.is_object() && found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

} // namespace

void DeathWatch::look()
{
	looking_ = true;
	vmm_.qmp().command("query-cpus-fast", {}, [this](const QmpReply &reply) {
		const size_t n = reply.ok && reply.value.is_array() ? reply.value.size() : 0;

		looking_ = false;
		if (!n || !hold_)
			return;
		if (n != hold_->vcpus()) {
			armed_ = false;
			why_ = "it has " + std::to_string(n) + " vCPUs, and had " + std::to_string(hold_->vcpus()) + " when it was taken hold of";
			changed_();
			return say_once("if QEMU is killed the VM is lost: " + why_);
		}
		look_at_virtio();
	});
}

void DeathWatch::look_at_virtio()
{
	looking_ = true;
	vmm_.qmp().command("x-query-virtio", {}, [this](const QmpReply &reply) {
		looking_ = false;
		if (!reply.ok || !reply.value.is_array()) {
			why_ = "QEMU does not tell of its virtio devices: " + reply.error;
			return say_once("if QEMU is killed: " + why_);
		}
		looking_ = true;
		look_at_virtio(reply.value, 0, std::make_shared<std::string>());
	});
}

// One after the other. A driver that is loaded anew shows in the status, or in where its first ring is.
void DeathWatch::look_at_virtio(Json devices, size_t at, std::shared_ptr<std::string> print)
{
	if (at == devices.size()) {
		looking_ = false;
		on_print(*print);
		return look_at_messages(0);
	}
	const std::string path = text_of(devices[at], "path");
	vmm_.qmp().command("x-query-virtio-status", {{"path", path}}, [this, devices, at, print, path](const QmpReply &reply) {
		if (!reply.ok || !reply.value.is_object()) {
			looking_ = false;
			return;
		}
		*print += path + " " + reply.value.value("status", Json()).dump() + reply.value.value("guest-features", Json()).dump() +
			  (reply.value.value("vhost-started", false) ? " vhost" : "") + (reply.value.value("broken", false) ? " broken" : "");
		vmm_.qmp().command("x-query-virtio-queue-status", {{"path", path}, {"queue", 0}}, [this, devices, at, print](const QmpReply &queue) {
			// Half an answer would look like another driver: QEMU may just have been killed.
			if (!queue.ok || !queue.value.is_object()) {
				looking_ = false;
				return;
			}
			for (const char *key : {"vring-desc", "vring-avail", "vring-used", "vring-num"})
				*print += " " + queue.value.value(key, Json()).dump();
			*print += "\n";
			look_at_virtio(devices, at + 1, print);
		});
	});
}

// Two looks that are the same: a driver that is being loaded is through.
void DeathWatch::on_print(const std::string &print)
{
	const auto now = Loop::Clock::now();
	const bool settled = print == seen_, other = print != print_, old = now - refreshed_ > config_.refresh;

	if (!settled)
		wait_ = try_again;
	seen_ = print;
	if (print != print_ && armed_) {
		armed_ = false;
		why_ = "a driver in the guest has changed what QEMU does, and its device state is from before";
		changed_();
	}
	if (!hold_ || busy_ || !settled || !vmm_.qmp().is_ready() || vmm_.state() != VmmState::running || !(wanted_ || other || old || !armed_))
		return;
	if (tried_print_ == print && now - tried_ < wait_)
		return;
	if (print.find("VIRTIO_CONFIG_S_DRIVER_OK") == std::string::npos) {
		why_ = "the guest has no virtio driver yet";
		return;
	}
	if (tried_print_ == print)
		wait_ = std::min<milliseconds>(wait_ * 2, config_.refresh);
	tried_print_ = print;
	refresh();
}

// As the guest would read them; reading changes nothing.
void DeathWatch::look_at_messages(size_t at)
{
	if (busy_ || !armed_ || at >= messages_.size())
		return;
	const Messages &m = messages_[at];
	const std::string command = "xp /" + std::to_string(m.table.size() / 4) + "wx " + std::to_string(m.address);

	looking_ = true;
	vmm_.qmp().command("human-monitor-command", {{"command-line", command}}, [this, at, of = refreshes_](const QmpReply &reply) {
		looking_ = false;
		// A refresh has been there meanwhile, or QEMU has been killed.
		if (busy_ || !armed_ || of != refreshes_ || !reply.ok || !reply.value.is_string())
			return;
		auto table = words_of(reply.value.get<std::string>());
		if (table.size() != messages_[at].table.size()) {
			armed_ = false;
			why_ = messages_[at].section + ": QEMU does not show its interrupt messages";
			changed_();
			return say_once("if QEMU is killed the VM is lost: " + why_);
		}
		if (table != messages_[at].table) {
			messages_[at].table = std::move(table);
			changed_();
		}
		look_at_messages(at + 1);
	});
}

} // namespace redoubt::agent
