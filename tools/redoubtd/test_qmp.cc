// SPDX-License-Identifier: GPL-2.0
//
// F2: QEMU's monitor, played by a server that says what the test wants.

#include <cstring>
#include <memory>
#include <thread>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hang.h"
#include "qmp.h"
#include "testing.h"
#include "vmm.h"

namespace redoubt::agent {

namespace {

const std::string greeting = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

// Answers each line by a function of it.
class Server {
public:
	using Talk = std::function<std::string(const Json &)>;

	Server(Loop &loop, const std::string &path, std::string first, Talk talk)
		: loop_(loop), first_(std::move(first)), talk_(std::move(talk)), listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0))
	{
		sockaddr_un address{};

		address.sun_family = AF_UNIX;
		memcpy(address.sun_path, path.c_str(), path.size());
		EXPECT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
		EXPECT_EQ(listen(listener_.get(), 4), 0);
		loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) {
			client = Fd(accept(listener_.get(), nullptr, nullptr));
			say(first_);
			loop_.watch(client.get(), EPOLLIN, [this](uint32_t) { hear(); });
		});
	}
	~Server()
	{
		loop_.forget(listener_.get());
		if (client)
			loop_.forget(client.get());
	}
	void say(const std::string &text)
	{
		for (size_t done = 0; done < text.size();) {
			const ssize_t n = write(client.get(), text.data() + done, text.size() - done);
			if (n <= 0)
				return;
			done += static_cast<size_t>(n);
		}
	}

	Fd client;
	int descriptors = 0;		// that came along
	std::vector<Json> heard;

private:
	void hear()
	{
		char buffer[4096];
		alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
		iovec part{buffer, sizeof(buffer)};
		msghdr message{};

		message.msg_iov = &part;
		message.msg_iovlen = 1;
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		const ssize_t n = recvmsg(client.get(), &message, MSG_CMSG_CLOEXEC);
		if (n <= 0) {
			loop_.forget(client.get());
			return;
		}
		if (cmsghdr *head = CMSG_FIRSTHDR(&message)) {
			int fd;

			memcpy(&fd, CMSG_DATA(head), sizeof(fd));
			close(fd);
			descriptors++;
		}
		in_.append(buffer, static_cast<size_t>(n));
		for (size_t end; (end = in_.find('\n')) != std::string::npos; in_.erase(0, end + 1)) {
			heard.push_back(Json::parse(in_.substr(0, end)));
			say(talk_(heard.back()));
		}
	}

	Loop &loop_;
	std::string first_, in_;
	Talk talk_;
	Fd listener_;
};

std::string good(const Json &line, const Json &value = Json::object())
{
	return Json{{"return", value}, {"id", line["id"]}}.dump() + "\n";
}

class QmpTest : public testing::Test {
protected:
	QmpTest()
	{
		Qmp::patience = milliseconds(300);
		qmp = std::make_unique<Qmp>(loop, dir / "qmp", Qmp::Handlers{[this] { ready = true; },
			[this](const std::string &event, const Json &data) { events += event + data.dump() + " "; },
			[this](const std::string &why) { closed += why + ";"; }});
	}
	~QmpTest() override { Qmp::patience = milliseconds(10'000); }
	void serve(Server::Talk talk, const std::string &first = greeting)
	{
		server = std::make_unique<Server>(loop, dir / "qmp", first, std::move(talk));
		qmp->connect();
	}
	// Its reply, once it has come
	QmpReply ask(const std::string &name, int fd = -1)
	{
		std::optional<QmpReply> got;

		qmp->command(name, {}, [&got](const QmpReply &reply) { got = reply; }, milliseconds(300), fd);
		EXPECT_TRUE(run_until(loop, [&got] { return got.has_value(); }));
		return got.value_or(QmpReply{});
	}

	Directory dir;
	Loop loop;
	std::unique_ptr<Server> server;
	std::unique_ptr<Qmp> qmp;
	bool ready = false;
	std::string events, closed;
};

} // namespace

TEST_F(QmpTest, F2_greeting_capabilities_commands_and_errors)
{
	serve([](const Json &line) {
		if (line["execute"] == "bad")
			return Json{{"error", {{"class", "GenericError"}, {"desc", "no\nsuch thing"}}}, {"id", line["id"]}}.dump() + "\n";
		return good(line, {{"said", line["execute"]}});
	});
	ASSERT_TRUE(run_until(loop, [this] { return ready; }));
	EXPECT_EQ(qmp->pid(), getpid());
	EXPECT_EQ(server->heard.at(0)["execute"], "qmp_capabilities");
	const QmpReply reply = ask("query-status"), bad = ask("bad");
	EXPECT_TRUE(reply.ok);
	EXPECT_EQ(reply.value["said"], "query-status");
	EXPECT_FALSE(bad.ok);
	EXPECT_EQ(bad.error, "bad: no such thing") << "one line";
	EXPECT_EQ(closed, "");
}

TEST_F(QmpTest, F2_events_and_answers_out_of_order_or_to_nobody)
{
	serve([](const Json &line) {
		return "{\"event\": \"STOP\", \"data\": {\"x\": 1}}\n{\"return\": {}, \"id\": 999}\n{\"return\": {}}\n{\"return\": {}, \"id\": \"x\"}\n" +
		       good(line) + "{\"event\": \"RESUME\"}\n";
	});
	ASSERT_TRUE(run_until(loop, [this] { return ready; }));
	events.clear();
	EXPECT_TRUE(ask("stop").ok);
	EXPECT_TRUE(run_until(loop, [this] { return has(events, "RESUME"); }));
	EXPECT_EQ(events, "STOP{\"x\":1} RESUME{} ");
}

TEST_F(QmpTest, F2_no_answer_in_time_and_one_that_comes_late)
{
	Json late;

	serve([&late](const Json &line) {
		if (line["execute"] != "slow")
			return good(line);
		late = line;
		return std::string();
	});
	ASSERT_TRUE(run_until(loop, [this] { return ready; }));
	const QmpReply reply = ask("slow");
	EXPECT_FALSE(reply.ok);
	EXPECT_TRUE(has(reply.error, "slow: no answer from QEMU in time")) << reply.error;
	server->say(good(late));
	EXPECT_TRUE(ask("next").ok) << "the late one was for nobody";
}

TEST_F(QmpTest, F2_a_monitor_that_somebody_else_has)
{
	serve([](const Json &line) { return good(line); }, "");
	EXPECT_TRUE(run_until(loop, [this] { return !closed.empty(); }));
	EXPECT_TRUE(has(closed, "no greeting")) << closed;
	EXPECT_FALSE(ready);
}

TEST_F(QmpTest, F2_what_is_no_monitor)
{
	for (const std::string &text : {std::string("HTTP/1.1 400 Bad Request\n"), std::string("[]\n"), std::string("\"x\"\n"), std::string("{\n")}) {
		closed.clear();
		server.reset();
		unlink((dir / "qmp").c_str());
		serve([](const Json &) { return std::string(); }, text);
		EXPECT_TRUE(run_until(loop, [this] { return !closed.empty(); })) << text;
		EXPECT_TRUE(has(closed, "does not speak QMP")) << closed;
		EXPECT_FALSE(ready);
	}
}

TEST_F(QmpTest, F2_its_end_is_an_answer_to_all_that_waits)
{
	std::string error;

	serve([](const Json &line) { return line["execute"] == "qmp_capabilities" ? good(line) : ""; });
	ASSERT_TRUE(run_until(loop, [this] { return ready; }));
	qmp->command("stop", {}, [&error](const QmpReply &reply) { error = reply.error; });
	loop.step(milliseconds(10));
	loop.forget(server->client.get());
	server->client = Fd();
	EXPECT_TRUE(run_until(loop, [&] { return !error.empty() && !closed.empty(); }));
	EXPECT_TRUE(has(error, "stop: ")) << error;
	EXPECT_FALSE(qmp->is_ready());
	EXPECT_TRUE(has(ask("cont").error, "no connection"));
}

TEST_F(QmpTest, F2_a_descriptor_goes_along)
{
	serve([](const Json &line) { return good(line); });
	ASSERT_TRUE(run_until(loop, [this] { return ready; }));
	const Fd zero(dup(0));
	EXPECT_TRUE(ask("getfd", zero.get()).ok);
	EXPECT_EQ(server->descriptors, 1);
}

TEST_F(QmpTest, F2_an_answer_of_another_form_is_an_error)
{
	std::string error;

	serve([](const Json &line) { return good(line, {{"status", 7}}); });
	ASSERT_TRUE(run_until(loop, [this] { return ready; }));
	qmp->command("query-status", {}, [&error](const QmpReply &reply) {
		error = reply.ok ? reply.value.value("status", "") : reply.error;
	});
	EXPECT_TRUE(run_until(loop, [&] { return !error.empty(); }));
	EXPECT_TRUE(has(error, "query-status: an answer of an unknown form")) << error;
}

// Of a QEMU that Vmm takes
const Json new_enough = {{{"name", "migrate-incoming"}, {"arg-type", "1"}}, {{"name", "1"}, {"members", {{{"name", "exit-on-error"}}}}}};

// The long answer of a slow QEMU: not yet is not "it does not know".
TEST_F(QmpTest, F2_a_QEMU_that_is_slow_is_not_an_old_one)
{
	unsigned asked = 0;
	Qmp::patience = milliseconds(30);
	Server slow(loop, dir / "qmp", greeting, [&](const Json &line) {
		const std::string command = line["execute"];

		if (command == "query-qmp-schema")
			return asked++ ? good(line, new_enough) : "";
		if (command == "query-status")
			return good(line, {{"status", "running"}, {"running", true}});
		return good(line);
	});
	Vmm vmm(loop, "slow", dir / "qmp", {[] {}, [] {}});
	vmm.start();
	EXPECT_TRUE(run_until(loop, [&] { return asked == 1; }));
	run_until(loop, [] { return false; }, milliseconds(100));
	EXPECT_EQ(vmm.state(), VmmState::gone) << "nothing is known of it yet";
	EXPECT_TRUE(run_until(loop, [&] { return vmm.state() == VmmState::running; }));
	EXPECT_EQ(vmm.refuses(), "");
	EXPECT_EQ(asked, 2u);
}

TEST_F(QmpTest, F2_what_a_QEMU_does_is_asked_again_until_it_is_known)
{
	unsigned asked = 0, migrating = 0;
	Qmp::patience = milliseconds(30);
	Server slow(loop, dir / "qmp", greeting, [&](const Json &line) {
		const std::string command = line["execute"];

		if (command == "query-qmp-schema")
			return good(line, new_enough);
		if (command == "query-status")
			return asked++ ? good(line, {{"status", "inmigrate"}, {"running", false}}) : "";
		// An agent before this one has begun to load it.
		if (command == "query-migrate")
			return good(line, {{"status", ++migrating < 3 ? "active" : "failed"}});
		return good(line);
	});
	Vmm vmm(loop, "slow", dir / "qmp", {[] {}, [] {}});
	vmm.start();
	EXPECT_TRUE(run_until(loop, [&] { return migrating == 1; }));
	EXPECT_EQ(vmm.state(), VmmState::gone) << "it is neither one that waits nor a VM";
	EXPECT_TRUE(run_until(loop, [&] { return vmm.state() != VmmState::gone; }));
	EXPECT_EQ(vmm.state(), VmmState::spoiled);
	EXPECT_EQ(migrating, 3u);
}

TEST_F(QmpTest, F1_a_QEMU_that_hangs_is_told_from_one_that_is_slow)
{
	bool hangs = false;
	Server quiet(loop, dir / "qmp", greeting, [&](const Json &line) {
		const std::string command = line["execute"];

		if (command == "query-qmp-schema")
			return good(line, new_enough);
		if (command == "query-status")
			return hangs ? "" : good(line, {{"status", "running"}, {"running", true}});
		return good(line);
	});
	Vmm vmm(loop, "hangs", dir / "qmp", {[] {}, [] {}});
	vmm.start();
	EXPECT_TRUE(run_until(loop, [&] { return vmm.state() == VmmState::running; }));
	HangWatch watch(vmm, std::chrono::seconds(1)), never(vmm, std::chrono::seconds(0));
	const auto told = [&] { return watch.tick(); };

	EXPECT_FALSE(run_until(loop, told, milliseconds(1500))) << "it answers";
	hangs = true;
	const auto began = Loop::Clock::now();
	EXPECT_TRUE(run_until(loop, told, milliseconds(3000)));
	EXPECT_GE(Loop::Clock::now() - began, milliseconds(900));
	EXPECT_FALSE(run_until(loop, [&] { return never.tick(); }, milliseconds(300)));
	// As if SIGSTOP had held this process up: nothing is said of QEMU.
	std::this_thread::sleep_for(milliseconds(2200));
	EXPECT_FALSE(watch.tick());
	// It comes to itself.
	hangs = false;
	EXPECT_FALSE(run_until(loop, told, milliseconds(2500)));
}

TEST_F(QmpTest, F2_nobody_listens)
{
	EXPECT_TRUE(has(error_of([this] { qmp->connect(); }), "No such file"));
}

} // namespace redoubt::agent
