// SPDX-License-Identifier: GPL-2.0
//
// F9: what the UPS says is understood, and acted upon in time; NUT's own upsd and its driver dummy-ups, on loopback.

#include <csignal>
#include <fcntl.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/redoubt_standby.h>

#include "power.h"
#include "testing.h"

namespace redoubt::agent {

namespace {

using std::chrono::seconds;

UpsReading said(const char *status, uint32_t charge = UpsReading::unknown, uint32_t runtime = UpsReading::unknown)
{
	UpsReading r;

	r.answered = true;
	snprintf(r.status, sizeof(r.status), "%s", status);
	r.charge = charge == UpsReading::unknown ? charge : charge * 100;
	r.charge_low = 2000;
	r.runtime_s = runtime;
	return r;
}

// 100 MiB, a link of 10 MiB/s; F = 2 + 5 s, a margin of 10: it is time with 27 s left.
struct World {
	PowerConfig config;
	std::vector<PowerNeed> needs{{"db", 100 << 20, 1}};
	unsigned gone = 0, back = 0;
	std::vector<uint8_t> events;
	Power power{config, {
		[this] { return needs; },
		[this](const std::string &) { gone++; },
		[this] { back++; },
		[this](uint8_t p, uint32_t, uint64_t) { events.push_back(p); }}};
	Power::Time now = Loop::Clock::now();

	World()
	{
		config.ups = "ups@localhost";
		power.rate_seen(10 << 20);
	}
	void hear(const UpsReading &r, int after = 1)
	{
		now += seconds(after);
		power.heard(r, now);
	}
	void silence(int s)
	{
		for (int i = 0; i < s; i++) {
			now += seconds(1);
			power.tick(now);
		}
	}
};

// NUT's daemons in a directory of their own, at a port of loopback.
class Nut {
public:
	Nut()
	{
		sockaddr_in name{};
		socklen_t size = sizeof(name);
		const int fd = socket(AF_INET, SOCK_STREAM, 0);

		name.sin_family = AF_INET;
		name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		if (!bind(fd, reinterpret_cast<sockaddr *>(&name), size) && !getsockname(fd, reinterpret_cast<sockaddr *>(&name), &size))
			port = ntohs(name.sin_port);
		close(fd);
		chmod(dir.path().c_str(), 0700);
		write_file(dir / "ups.conf", "[ups]\ndriver = dummy-ups\nport = " + (dir / "ups.dev") + "\nmode = dummy-once\npollinterval = 1\n");
		write_file(dir / "upsd.conf", "MAXAGE 5\nLISTEN 127.0.0.1 " + std::to_string(port) + "\n");
		write_file(dir / "upsd.users", "");
		for (const char *file : {"ups.conf", "upsd.conf", "upsd.users"})
			chmod((dir / file).c_str(), 0600);
		for (const char *one : {"NUT_CONFPATH", "NUT_STATEPATH", "NUT_ALTPIDPATH", "NUT_PIDPATH"})
			setenv(one, dir.path().c_str(), 1);
		says("OL", 100, 600);
		driver = spawn({"/lib/nut/dummy-ups", "-F", "-a", "ups", "-u", user()});
		upsd = spawn({"/lib/nut/upsd", "-F", "-u", user()});
	}
	~Nut()
	{
		end(driver);
		end(upsd);
	}
	// As the driver would: it looks at the file's time, in seconds.
	void says(const std::string &status, unsigned charge, unsigned runtime)
	{
		struct stat before{}, now{};
		const std::string file = dir / "ups.dev";

		stat(file.c_str(), &before);
		do {
			write_file(dir / "ups.new", "ups.status: " + status + "\nbattery.charge: " + std::to_string(charge) +
				   "\nbattery.charge.low: 20\nbattery.runtime: " + std::to_string(runtime) + "\nups.mfr: x\nups.model: y\n");
			stat((dir / "ups.new").c_str(), &now);
			usleep(100'000);
		} while (now.st_mtime == before.st_mtime);
		rename((dir / "ups.new").c_str(), file.c_str());
	}
	static void end(pid_t &pid)
	{
		if (pid > 0) {
			kill(pid, SIGKILL);
			waitpid(pid, nullptr, 0);
		}
		pid = 0;
	}
	std::string name() const { return "ups@127.0.0.1:" + std::to_string(port); }

	Directory dir;
	uint16_t port = 0;
	pid_t driver = 0, upsd = 0;

private:
	static std::string user() { return geteuid() ? "nut" : "root"; }
	static pid_t spawn(std::vector<std::string> words)
	{
		const pid_t pid = fork();

		if (pid)
			return pid;
		std::vector<char *> argv;
		for (std::string &word : words)
			argv.push_back(word.data());
		argv.push_back(nullptr);
		const int null = open("/dev/null", O_RDWR);
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		execv(argv[0], argv.data());
		_exit(127);
	}
};

} // namespace

TEST(Power, F9_mains_battery_low)
{
	World w;

	w.hear(said("OL CHRG", 100, 600));
	EXPECT_FALSE(w.power.on_battery());
	w.hear(said("OB DISCHRG", 90, 300));
	EXPECT_TRUE(w.power.on_battery());
	EXPECT_EQ(w.power.budget(w.now), (300u - 17) * (10 << 20));
	EXPECT_EQ(w.power.status(w.now)["need_bytes"], 100 << 20);
	EXPECT_EQ(w.gone, 0u);
	w.hear(said("OB DISCHRG LB", 15, 290));
	EXPECT_EQ(w.gone, 1u);
	// Until it has gone, each second
	w.hear(said("OB DISCHRG LB", 14, 280));
	EXPECT_EQ(w.gone, 2u);
	w.hear(said("OL", 14, 280));
	EXPECT_EQ(w.back, 1u);
	w.hear(said("OL", 14, 280));
	EXPECT_EQ(w.gone, 2u);
	EXPECT_EQ(w.back, 1u);
	EXPECT_EQ(w.events, (std::vector<uint8_t>{RDT_SB_POWER_ONLINE, RDT_SB_POWER_BATTERY, RDT_SB_POWER_LOW, RDT_SB_POWER_ONLINE}));
}

TEST(Power, F9_as_much_time_as_it_takes)
{
	World w;

	w.hear(said("OB", 90, 28));
	EXPECT_EQ(w.gone, 0u);
	w.hear(said("OB", 90, 27));
	EXPECT_EQ(w.gone, 1u);
	// A slower link, and a VM more
	World slow;
	slow.power.rate_seen(1 << 20);
	slow.hear(said("OB", 90, 100));
	EXPECT_EQ(slow.gone, 1u);
	World two;
	two.needs.push_back({"web", 2000ull << 20, 2});
	two.hear(said("OB", 90, 100));
	EXPECT_EQ(two.gone, 1u);
	// A hand-over that took longer beside its pages than was thought
	World stiff;
	stiff.power.fixed_seen(30'000);
	stiff.hear(said("OB", 90, 50));
	EXPECT_EQ(stiff.gone, 1u);
}

TEST(Power, F9_a_battery_that_promises_too_much)
{
	World w;

	// 1 % in 2 s: from 90 to 20 in 140 s, whatever it says of its runtime.
	for (unsigned charge = 90; charge > 75; charge--)
		w.hear(said("OB", charge, 3000), 2);
	EXPECT_EQ(w.gone, 0u);
	for (unsigned charge = 75; !w.gone; charge--) {
		ASSERT_GT(charge, 20u);
		w.hear(said("OB", charge, 3000), 2);
	}
	const auto left = w.power.status(w.now)["hold_up_s"].get<unsigned>();
	EXPECT_LE(left, 27u);
	EXPECT_GE(left, 24u);
}

TEST(Power, F9_what_is_not_known_is_nothing)
{
	World w;

	// Neither runtime nor, as yet, how fast it falls
	w.hear(said("OB"));
	EXPECT_EQ(w.gone, 1u);
	// No rate
	PowerConfig config;
	unsigned gone = 0;
	Power power(config, {[] { return std::vector<PowerNeed>{{"db", 1, 1}}; }, [&gone](const std::string &) { gone++; }, [] {},
			     [](uint8_t, uint32_t, uint64_t) {}});
	power.heard(said("OB", 90, 3600), Loop::Clock::now());
	EXPECT_EQ(gone, 1u);
}

TEST(Power, F9_words_that_are_none)
{
	World w;

	w.hear(said("OB", 90, 300));
	w.hear(said("OFF", 90, 300));
	w.hear(said("", 90, 300));
	EXPECT_TRUE(w.power.on_battery());
	w.hear(said("OL LB", 10, 30));
	EXPECT_FALSE(w.power.on_battery());
	w.hear(said("OB CAL LB", 10, 30));
	EXPECT_FALSE(w.power.on_battery());
	EXPECT_EQ(w.gone, 0u);
	w.hear(said("FSD OL", 100, 600));
	EXPECT_EQ(w.gone, 1u);
}

TEST(Power, F9_upsd_is_silent_on_battery)
{
	World w;

	w.hear(said("OB", 90, 60));
	w.silence(30);
	EXPECT_EQ(w.gone, 0u);
	EXPECT_EQ(w.power.status(w.now)["hold_up_s"], 30);
	EXPECT_EQ(w.events, (std::vector<uint8_t>{RDT_SB_POWER_BATTERY}));
	EXPECT_TRUE(w.power.status(w.now).contains("error"));
	w.silence(4);
	EXPECT_GT(w.gone, 0u);
	// Told again, and then that it is the last of it
	EXPECT_GE(w.events.size(), 2u);
	// On mains it is no reason to go.
	World mains;
	mains.hear(said("OL", 90, 60));
	mains.silence(100);
	EXPECT_EQ(mains.gone, 0u);
}

TEST(Power, F9_on_return_stay)
{
	World w;

	w.config.resume = false;
	w.hear(said("OB LB", 10, 10));
	w.hear(said("OL", 10, 10));
	EXPECT_EQ(w.gone, 1u);
	EXPECT_EQ(w.back, 0u);
}

TEST(Ups, F9_names)
{
	Loop loop;

	EXPECT_TRUE(has(error_of([&] { Ups(loop, "", [](const UpsReading &) {}); }), "power.ups"));
	EXPECT_TRUE(has(error_of([&] { Ups(loop, "ups@host:x", [](const UpsReading &) {}); }), "power.ups"));
}

TEST(Ups, F9_nobody_listens)
{
	Loop loop;
	std::vector<UpsReading> heard;
	Ups ups(loop, "ups@127.0.0.1:1", [&](const UpsReading &r) { heard.push_back(r); });

	ASSERT_TRUE(run_until(loop, [&] { return heard.size() >= 2; }));
	EXPECT_FALSE(heard[1].answered);
	EXPECT_TRUE(has(heard[1].error, "refused")) << heard[1].error;
}

TEST(Ups, F9_upsd_and_a_driver)
{
	Nut nut;
	Loop loop;
	UpsReading last;
	PowerConfig config;
	unsigned gone = 0, back = 0;
	config.ups = nut.name();
	Power power(config, {[] { return std::vector<PowerNeed>{{"db", 100 << 20, 1}}; }, [&gone](const std::string &) { gone++; },
			     [&back] { back++; }, [](uint8_t, uint32_t, uint64_t) {}});
	power.rate_seen(10 << 20);
	Ups ups(loop, nut.name(), [&](const UpsReading &r) {
		last = r;
		power.heard(r, Loop::Clock::now());
	});
	const auto is = [&](const char *status) {
		return run_until(loop, [&] { return last.answered && std::string(last.status) == status; }, milliseconds(20'000));
	};

	ASSERT_TRUE(is("OL")) << last.error;
	EXPECT_EQ(last.charge, 10000u);
	EXPECT_EQ(last.charge_low, 2000u);
	EXPECT_EQ(last.runtime_s, 600u);
	nut.says("OB DISCHRG", 80, 300);
	ASSERT_TRUE(is("OB DISCHRG")) << last.error;
	EXPECT_TRUE(power.on_battery());
	EXPECT_EQ(last.charge, 8000u);
	EXPECT_EQ(gone, 0u);
	nut.says("OB DISCHRG LB", 19, 50);
	ASSERT_TRUE(is("OB DISCHRG LB"));
	EXPECT_GT(gone, 0u);
	nut.says("OL CHRG", 20, 60);
	ASSERT_TRUE(is("OL CHRG"));
	EXPECT_EQ(back, 1u);
	// The driver dies: upsd does not go on saying what it said.
	nut.says("OB DISCHRG", 20, 400);
	ASSERT_TRUE(is("OB DISCHRG"));
	gone = 0;
	Nut::end(nut.driver);
	ASSERT_TRUE(run_until(loop, [&] { return !last.answered; }, milliseconds(30'000)));
	EXPECT_TRUE(has(last.error, "stale") || has(last.error, "not connected")) << last.error;
	EXPECT_TRUE(power.on_battery());
	EXPECT_EQ(gone, 0u);
	// upsd dies, too, and the agent ends with nobody there to answer it.
	Nut::end(nut.upsd);
	ASSERT_TRUE(run_until(loop, [&] { return has(last.error, "refused"); }, milliseconds(10'000))) << last.error;
}

} // namespace redoubt::agent
