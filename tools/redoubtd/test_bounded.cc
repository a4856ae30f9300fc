// SPDX-License-Identifier: GPL-2.0
//
// F5, F6: bounded mode's sets, its budget, and its rounds: what the standby has in the end is the memory, whatever was
// lost, and what it has is not sent again.

#include <cstring>
#include <random>

#include <unistd.h>

#include "bounded.h"
#include "standby.h"
#include "testing.h"

namespace redoubt::agent {

namespace {

constexpr uint64_t frames = 3000;

struct Told {
	FrameSet written{frames};
	uint64_t faults = 0;
	unsigned arms = 0, scans = 0;
	bool broken = false;
};

class FakeTracker : public DirtyTracker {
public:
	explicit FakeTracker(Told &told) : told_(told) {}
	void arm() override { told_.arms++; }
	// In three parts
	bool scan(FrameSet &out, uint64_t &found) override
	{
		if (told_.broken) {
			rewind();
			told_.scans++;
			throw Error("no answer");
		}
		for (uint64_t f = part_ * frames / 3; f < (part_ + 1) * frames / 3; f++) {
			if (!told_.written.has(f))
				continue;
			out.add(f);
			told_.written.remove(f);
			found++;
		}
		if (++part_ < 3)
			return false;
		told_.scans++;
		rewind();
		return true;
	}
	void rewind() override { part_ = 0; }

private:
	Told &told_;
	uint64_t part_ = 0;
};

// A primary and a standby, and a link that the test has in its hands.
class Rounds : public testing::Test {
protected:
	Rounds()
	{
		Bounded::unbounded_interval = milliseconds(50);
		for (const char *name : {"a.ram", "b.ram"}) {
			write_file(dir / name, "");
			EXPECT_EQ(truncate((dir / name).c_str(), frames * page_bytes), 0);
		}
		from = std::make_unique<RamFile>(dir / "a.ram");
		to = std::make_unique<RamFile>(dir / "b.ram");
		source = std::make_unique<FileSource>(*from);
		receiver = std::make_unique<Receiver>(loop, *to, dir / "b.state");
		receiver->begin();
		for (uint64_t f = 0; f < frames; f += 2)
			write(f, 1);
		sender = std::make_unique<Sender>(frames, *source, Compress::off, Sender::Handlers{
			[this](sb::Msg msg, std::span<const uint8_t> head, std::span<const uint8_t> data) { carry(msg, head, data); },
			[this] { return up; }, [] { return true; },
			[this](const sb::Digest &d) {
				digest = d;
				sent++;
			},
			[this](const std::string &why) { failed = why; },
			[this] { bounded->copied(); }});
		bounded = std::make_unique<Bounded>(loop, *sender, frames, std::make_unique<FakeTracker>(told), nullptr, budget, Bounded::Handlers{
			[this](std::function<void()> then) { barriers.push_back(std::move(then)); },
			[this] { begins++; },
			[](const std::string &) {}});
	}
	void write(uint64_t frame, uint8_t value)
	{
		const std::vector<uint8_t> page(page_bytes, value);

		from->write(frame, 1, page.data());
	}
	void carry(sb::Msg msg, std::span<const uint8_t> head, std::span<const uint8_t> data)
	{
		std::vector<uint8_t> bytes;
		const sb::Header h = as_bytes(msg, head, data, &bytes);
		sb::Body body;

		ASSERT_EQ(sb::get_body(h, bytes.data(), &body), Status::Ok);
		if (arrives)
			receiver->take(msg, body);
	}
	// The standby's answer to BEGIN
	void answer()
	{
		const Receiver::Lacking lacking = receiver->lacking();

		bounded->lacks(lacking.runs, lacking.flags & sb::lacks_more);
	}
	void confirm()
	{
		for (const auto &then : std::exchange(barriers, {}))
			then();
	}
	uint64_t shipped() const { return sender->copied().data + sender->copied().zero; }
	// Until nothing is left to be sent, and a few scans later
	bool quiet()
	{
		const unsigned until = told.scans + 2;

		return run_until(loop, [&] {
			confirm();
			return told.scans >= until && !bounded->dirty() && !sender->copying();
		}, milliseconds(20'000));
	}
	uint64_t differ() const
	{
		std::vector<uint8_t> x(page_bytes), y(page_bytes);
		uint64_t n = 0;

		for (uint64_t f = 0; f < frames; f++) {
			from->read(f, 1, x.data());
			to->read(f, 1, y.data());
			n += x != y;
		}
		return n;
	}
	// At the end: the standby's image is whole, and the memory.
	void go()
	{
		const std::vector<uint8_t> state(1000, 3);
		sb::Body end{};
		sb::Digest mine;

		bounded->end();
		arrives = up = true;
		sender->begin(state);
		ASSERT_EQ(sent, 1u) << failed;
		end.end_frames = frames;
		end.end_state = state.size();
		ASSERT_TRUE(receiver->check(end, &mine));
		EXPECT_TRUE(mine == digest);
		EXPECT_EQ(differ(), 0u);
		EXPECT_EQ(sender->progress().data + sender->progress().zero + sender->progress().same, frames);
	}

	Directory dir;
	Loop loop;
	Config config;
	Budget budget{config};
	Told told;
	std::unique_ptr<RamFile> from, to;
	std::unique_ptr<FileSource> source;
	std::unique_ptr<Receiver> receiver;
	std::unique_ptr<Sender> sender;
	std::unique_ptr<Bounded> bounded;
	std::vector<std::function<void()>> barriers;
	sb::Digest digest{};
	bool up = true, arrives = true;
	unsigned sent = 0, begins = 0;
	std::string failed;
};

} // namespace

TEST(FrameSetTest, F6_what_is_taken_is_what_was_added)
{
	std::mt19937 random(1);
	FrameSet set(1000);
	std::vector<bool> want(1000);
	uint64_t from = 700, count = 0;

	for (unsigned i = 0; i < 300; i++) {
		const uint64_t f = random() % 1000;

		count += !want[f];
		want[f] = true;
		set.add(f);
	}
	EXPECT_EQ(set.count(), count);
	while (set.count()) {
		const uint64_t before = set.count();
		uint64_t taken = 0;

		for (const sb::Run &run : set.take(from, 17)) {
			for (uint64_t i = 0; i < run.count; i++) {
				ASSERT_TRUE(want[run.first + i]);
				want[run.first + i] = false;
			}
			taken += run.count;
		}
		ASSERT_EQ(taken, std::min<uint64_t>(before, 17));
		ASSERT_EQ(set.count(), before - taken);
	}
	EXPECT_EQ(std::count(want.begin(), want.end(), true), 0);
	set.fill();
	EXPECT_EQ(set.count(), 1000u);
	FrameSet some(1000);
	some.add({10, 5});
	set.remove(some);
	EXPECT_EQ(set.count(), 995u);
	set.add(some);
	EXPECT_EQ(set.count(), 1000u);
}

TEST(BudgetTest, F5_from_the_configuration_or_the_battery)
{
	Config config;
	Budget budget(config);

	EXPECT_EQ(budget.bytes(0), 0u) << "nothing is known";
	config.budget_bytes = 5 << 20;
	EXPECT_EQ(budget.bytes(1000), 5u << 20);
	config.budget_bytes = 0;
	config.battery = std::chrono::seconds(100);
	EXPECT_EQ(budget.bytes(0), 0u) << "no rate";
	budget.goodput(1 << 20, 200'000);
	EXPECT_EQ(budget.rate(), 5u << 20);
	// 80 s by its rating, less 10, 5 and what hashing takes
	EXPECT_EQ(budget.bytes(3000), 62 * (5ull << 20));
	// What the UPS says goes before that.
	budget.supply(Budget::Supply{.hold_up_ms = 20'000, .fixed_ms = 4'000, .margin_ms = 5'000});
	EXPECT_EQ(budget.bytes(1000), 10 * (5ull << 20));
	budget.supply(Budget::Supply{.hold_up_ms = 0, .fixed_ms = 0, .margin_ms = 0});
	EXPECT_EQ(budget.bytes(0), 0u);
	// The slow ones count.
	for (unsigned i = 0; i < 20; i++)
		budget.goodput(i < 4 ? 1 << 20 : 9 << 20, 1'000'000);
	EXPECT_EQ(budget.rate(), 1u << 20);
}

TEST_F(Rounds, F6_all_is_copied_once_and_then_what_is_written)
{
	bounded->begin(7);
	EXPECT_EQ(told.arms, 1u);
	EXPECT_FALSE(sender->copying()) << "the standby has not said what it has";
	answer();
	ASSERT_TRUE(quiet());
	EXPECT_EQ(shipped(), frames);
	EXPECT_EQ(differ(), 0u);
	for (uint64_t f : {1, 5, 2999}) {
		write(f, 9);
		told.written.add(f);
	}
	// Told, and what it was
	told.written.add(0);
	ASSERT_TRUE(quiet());
	EXPECT_EQ(shipped(), frames + 3);
	EXPECT_EQ(differ(), 0u);
	go();
	EXPECT_EQ(sender->progress().same, frames);
}

TEST_F(Rounds, F6_what_DMA_writes_behind_the_scan_is_found_by_the_second_look)
{
	bounded->begin(7);
	answer();
	ASSERT_TRUE(quiet());
	told.written.add(4);
	const uint64_t same = sender->copied().same;
	ASSERT_TRUE(run_until(loop, [&] { return sender->copied().same > same; }));
	write(4, 77);		// nobody tells
	ASSERT_TRUE(quiet());
	EXPECT_EQ(differ(), 0u);
	EXPECT_EQ(bounded->status()["second_look"], 1);
}

TEST_F(Rounds, F3_F6_a_tracker_that_says_nothing_costs_time_and_no_truth)
{
	bounded->begin(7);
	answer();
	ASSERT_TRUE(quiet());
	for (uint64_t f = 100; f < 200; f++)
		write(f, 200);
	go();
	EXPECT_EQ(sender->progress().data, 100u);
	EXPECT_EQ(sender->progress().same, frames - 100);
}

TEST_F(Rounds, F3_an_image_that_somebody_wrote_to_meanwhile_is_not_whole)
{
	const std::vector<uint8_t> page(page_bytes, 66), state(1000, 3);
	sb::Body end{};
	sb::Digest mine;

	bounded->begin(7);
	answer();
	ASSERT_TRUE(quiet());
	to->write(2999, 1, page.data());
	to->write(10, 1, page.data());
	bounded->end();
	receiver->look_again();
	loop.step(milliseconds(0));
	sender->begin(state);
	ASSERT_EQ(sent, 1u) << failed;
	end.end_frames = frames;
	end.end_state = state.size();
	EXPECT_FALSE(receiver->check(end, &mine));
	const Receiver::Lacking lacking = receiver->lacking();
	ASSERT_EQ(lacking.runs.size(), 2u);
	EXPECT_EQ(lacking.runs[0].first, 10u);
	EXPECT_EQ(lacking.runs[1].first, 2999u);
	sender->again(lacking.runs, false);
	ASSERT_EQ(sent, 2u);
	ASSERT_TRUE(receiver->check(end, &mine));
	EXPECT_TRUE(mine == digest);
	EXPECT_EQ(differ(), 0u);
}

TEST_F(Rounds, F4_F6_what_was_on_its_way_when_the_link_ended_is_sent_again)
{
	bounded->begin(7);
	answer();
	ASSERT_TRUE(quiet());
	const uint64_t before = shipped();
	// It is sent, and does not arrive, and no PING comes back.
	arrives = false;
	for (uint64_t f = 0; f < 50; f++) {
		write(f, 50);
		told.written.add(f);
	}
	ASSERT_TRUE(run_until(loop, [&] { return shipped() >= before + 50; }));
	up = false;
	barriers.clear();
	bounded->link_down();
	EXPECT_EQ(bounded->dirty(), 50 * page_bytes);
	// A new one
	arrives = up = true;
	bounded->begin(7);
	EXPECT_EQ(bounded->dirty(), 50 * page_bytes) << "not all anew";
	answer();
	ASSERT_TRUE(quiet());
	EXPECT_EQ(shipped(), before + 100);
	EXPECT_EQ(differ(), 0u);
	// Or there is none before the go.
	arrives = false;
	write(3, 51);
	told.written.add(3);
	ASSERT_TRUE(run_until(loop, [&] { return shipped() > before + 100; }));
	barriers.clear();
	bounded->link_down();
	go();
	EXPECT_EQ(sender->progress().data, 1u);
}

TEST_F(Rounds, F4_F6_a_standby_that_has_forgotten_is_given_all_again)
{
	bounded->begin(7);
	answer();
	ASSERT_TRUE(quiet());
	receiver->begin();
	bounded->link_down();
	bounded->begin(7);
	answer();
	ASSERT_TRUE(quiet());
	EXPECT_EQ(shipped(), 2 * frames);
	// Another epoch, too
	receiver->begin();
	bounded->begin(8);
	answer();
	ASSERT_TRUE(quiet());
	EXPECT_EQ(shipped(), frames);
	EXPECT_EQ(differ(), 0u);
	// More than an answer can say
	const sb::Run one{5, 10};
	bounded->lacks({&one, 1}, true);
	EXPECT_EQ(bounded->dirty(), (frames - 5) * page_bytes);
	const sb::Run beyond{frames - 1, 2};
	bounded->lacks({&beyond, 1}, false);
	EXPECT_TRUE(has(bounded->status()["trouble"], "does not have"));
}

TEST_F(Rounds, F5_F6_a_scan_that_fails_is_all_of_it)
{
	bounded->begin(7);
	answer();
	ASSERT_TRUE(quiet());
	write(11, 12);
	told.broken = true;
	const unsigned scans = told.scans;
	ASSERT_TRUE(run_until(loop, [&] { return told.scans > scans; }));
	told.broken = false;
	ASSERT_TRUE(quiet());
	EXPECT_EQ(differ(), 0u);
	EXPECT_EQ(shipped(), frames + 1) << "looked at, and not sent";
}

TEST_F(Rounds, F5_BEGIN_is_said_again_until_there_is_an_answer)
{
	bounded->begin(7);
	EXPECT_TRUE(run_until(loop, [&] { return begins >= 1; }));
	EXPECT_EQ(bounded->status()["state"], "waits for the standby");
	bounded->end();
	EXPECT_EQ(bounded->status()["state"], "off");
	EXPECT_FALSE(bounded->active());
}

} // namespace redoubt::agent
