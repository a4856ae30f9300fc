// SPDX-License-Identifier: GPL-2.0
//
// F2, F3, F6: what leaves one RAM file arrives in the other one, or counts as lacking; journals; the agent's socket.

#include <cerrno>
#include <csignal>
#include <cstring>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "journal.h"
#include "primary.h"
#include "saved.h"
#include "standby.h"
#include "testing.h"

namespace redoubt::agent {

namespace {

constexpr uint64_t frames = 500;

// Two RAM files, and messages that go from one to the other as bytes, if @pass lets them.
class Store : public testing::Test {
protected:
	Store()
	{
		std::string bytes(frames * page_bytes, '\0');

		// Holes at the end; zero pages, repeated bytes and noise before
		for (uint64_t f = 0; f < 300; f++) {
			if (f % 5 == 0)
				continue;
			for (uint64_t i = 0; i < page_bytes; i += 4) {
				const uint32_t value = f % 5 < 3 ? static_cast<uint32_t>(f) : static_cast<uint32_t>(rand());
				memcpy(&bytes[f * page_bytes + i], &value, 4);
			}
		}
		bytes[17 * page_bytes - 1] = 'x';
		write_file(dir / "a.ram", bytes.substr(0, 300 * page_bytes));
		EXPECT_EQ(truncate((dir / "a.ram").c_str(), frames * page_bytes), 0);
		// What lies there of before must go.
		write_file(dir / "b.ram", std::string(frames * page_bytes, 'o'));
		from = std::make_unique<RamFile>(dir / "a.ram");
		to = std::make_unique<RamFile>(dir / "b.ram");
		source = std::make_unique<FileSource>(*from);
		receiver = std::make_unique<Receiver>(loop, *to, dir / "b.ram.state");
		state.assign(200'000, 3);
	}
	void make(Compress compress = Compress::automatic)
	{
		sender = std::make_unique<Sender>(frames, *source, compress, Sender::Handlers{
			[this](sb::Msg msg, std::span<const uint8_t> head, std::span<const uint8_t> data) { carry(msg, head, data); },
			[] { return true; }, [this] { return idle; },
			[this](const sb::Digest &d) {
				digest = d;
				sent++;
			},
			[this](const std::string &why) { failed = why; }});
	}
	// As the link does it: bytes, and out of bytes again
	void carry(sb::Msg msg, std::span<const uint8_t> head, std::span<const uint8_t> data)
	{
		std::vector<uint8_t> bytes;
		const sb::Header h = as_bytes(msg, head, data, &bytes);
		sb::Body body;

		messages++;
		if (!pass(msg))
			return;
		if (spoil)
			spoil(bytes);
		ASSERT_EQ(sb::get_body(h, bytes.data(), &body), Status::Ok);
		try {
			receiver->take(msg, body);
		} catch (const Error &error) {
			refused = error.what();
		}
	}
	bool whole(sb::Digest *mine)
	{
		sb::Body end{};

		end.end_frames = frames;
		end.end_state = state.size();
		return receiver->check(end, mine);
	}
	bool same() const
	{
		std::vector<uint8_t> x(frames * page_bytes), y(x.size());

		from->read(0, frames, x.data());
		to->read(0, frames, y.data());
		return x == y;
	}

	Directory dir;
	Loop loop;
	std::unique_ptr<RamFile> from, to;
	std::unique_ptr<FileSource> source;
	std::unique_ptr<Receiver> receiver;
	std::unique_ptr<Sender> sender;
	std::vector<uint8_t> state;
	std::function<bool(sb::Msg)> pass = [](sb::Msg) { return true; };
	std::function<void(std::vector<uint8_t> &)> spoil;
	sb::Digest digest{};
	unsigned sent = 0, messages = 0;
	bool idle = true;
	std::string failed, refused;
};

} // namespace

TEST_F(Store, F2_F6_an_image_arrives_and_zero_pages_cost_nothing)
{
	for (const Compress how : {Compress::off, Compress::automatic, Compress::lz4}) {
		sb::Digest mine;

		make(how);
		idle = how != Compress::automatic;
		receiver->begin();
		sent = 0;
		sender->begin(state);
		ASSERT_EQ(sent, 1u) << failed;
		ASSERT_TRUE(whole(&mine));
		EXPECT_TRUE(mine == digest);
		EXPECT_TRUE(same());
		EXPECT_EQ(receiver->state(), state);
		EXPECT_EQ(sender->progress().zero, 60u + 200u);
		EXPECT_EQ(sender->progress().data, 240u);
		EXPECT_EQ(sender->progress().raw, 240 * page_bytes);
		EXPECT_EQ(sender->progress().wire < sender->progress().raw, how != Compress::off);
	}
}

TEST_F(Store, F3_what_was_lost_is_lacking_and_sent_again)
{
	sb::Digest mine;

	make();
	srand(1);
	pass = [](sb::Msg) { return rand() % 4 != 0; };
	receiver->begin();
	sender->begin(state);
	for (int round = 0; !whole(&mine); round++) {
		ASSERT_LT(round, 50);
		const Receiver::Lacking lacking = receiver->lacking();
		ASSERT_TRUE(!lacking.runs.empty() || (lacking.flags & sb::lacks_state));
		sender->again(lacking.runs, lacking.flags & sb::lacks_state);
	}
	EXPECT_TRUE(mine == digest);
	EXPECT_TRUE(same());
	EXPECT_GT(sender->progress().again, 0u);
}

TEST_F(Store, F3_a_byte_that_is_another_is_noticed)
{
	sb::Digest mine;

	make(Compress::off);
	// The last byte of some page
	spoil = [this](std::vector<uint8_t> &bytes) {
		if (messages == 8)
			bytes.back() ^= 1;
	};
	receiver->begin();
	sender->begin(state);
	EXPECT_TRUE(whole(&mine)) << "all has come";
	EXPECT_FALSE(mine == digest) << "but it is not what was sent";
	const Receiver::Lacking all = receiver->lacking();
	ASSERT_EQ(all.runs.size(), 1u);
	EXPECT_EQ(all.runs[0].count, frames);
}

TEST_F(Store, F3_no_message_may_write_elsewhere_or_be_half)
{
	sb::Body body{};
	std::vector<uint8_t> page(page_bytes, 1);

	receiver->begin();
	body.first = frames - 1;
	body.frames = 2;
	body.data = page.data();
	body.data_bytes = page_bytes;
	body.zero = 1;
	EXPECT_TRUE(has(error_of([&] { receiver->take(sb::Msg::Pages, body); }), "does not have"));
	body.first = 0;
	body.codec = sb::Codec::Lz4;
	body.data_bytes = 100;
	EXPECT_TRUE(has(error_of([&] { receiver->take(sb::Msg::Pages, body); }), "cannot be unpacked"));
	body.codec = sb::Codec::Zstd;
	EXPECT_TRUE(has(error_of([&] { receiver->take(sb::Msg::Pages, body); }), "not known here"));
	body = {};
	body.total = 100;
	body.offset = 50;
	body.data = page.data();
	body.data_bytes = 50;
	EXPECT_TRUE(has(error_of([&] { receiver->take(sb::Msg::State, body); }), "out of order"));
	EXPECT_EQ(receiver->have(), 0u);
}

TEST_F(Store, F3_an_agent_that_is_started_again_looks_at_what_lies_there)
{
	sb::Digest mine;
	std::optional<bool> good;
	sb::Digest found{};
	const auto look = [&] {
		Receiver again(loop, *to, dir / "b.ram.state");

		good.reset();
		again.verify([&](bool is_whole, const sb::Digest &d) {
			good = is_whole;
			found = d;
		});
		EXPECT_TRUE(run_until(loop, [&] { return good.has_value(); }));
		return *good && found == digest;
	};

	make();
	receiver->begin();
	sender->begin(state);
	ASSERT_TRUE(whole(&mine));
	EXPECT_TRUE(look());
	const std::vector<uint8_t> other(page_bytes, 9);
	to->write(499, 1, other.data());
	EXPECT_FALSE(look()) << "a page is another";
	unlink((dir / "b.ram.state").c_str());
	EXPECT_FALSE(look()) << "no device state";
}

TEST_F(Store, F3_RAM_files_that_will_not_do)
{
	EXPECT_TRUE(has(error_of([this] { RamFile(dir / "none"); }), "No such file"));
	write_file(dir / "odd", "x");
	EXPECT_TRUE(has(error_of([this] { RamFile(dir / "odd"); }), "no file of whole pages"));
	EXPECT_EQ(from->changed(), "");
	rename((dir / "b.ram").c_str(), (dir / "a.ram").c_str());
	EXPECT_TRUE(has(from->changed(), "another file"));
	uint8_t page[page_bytes];
	EXPECT_TRUE(has(error_of([&] { from->read(frames, 1, page); }), "behind its end"));
}

TEST(JournalFileTest, F4_a_record_is_there_again_and_a_wrong_one_is_no_record)
{
	Directory dir;
	const std::string path = dir / "state";

	{
		const StateDirectory state(path);
		JournalFile journal(state, "db");

		EXPECT_EQ(journal.last(), nullptr);
		EXPECT_TRUE(has(error_of([&] { StateDirectory second(path); }), "another redoubtd's"));
		for (uint64_t e = 1; e <= 200; e++)
			journal.write({.kind = sb::Kind::Run, .flags = 0, .epoch = e, .boot = 5, .peer = 6, .digest = {}}, e % 2);
	}
	struct stat st;
	ASSERT_EQ(stat((path + "/db.journal").c_str(), &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0600u);
	EXPECT_EQ(st.st_size, sb::Journal::file_bytes);
	{
		const StateDirectory state(path);
		const JournalFile journal(state, "db");

		ASSERT_NE(journal.last(), nullptr);
		EXPECT_EQ(journal.last()->epoch, 200u);
		EXPECT_EQ(journal.last()->boot, 5u);
	}
	write_file(path + "/db.journal", std::string(4096, 'x'));
	const StateDirectory state(path);
	EXPECT_TRUE(has(error_of([&] { JournalFile(state, "db"); }), "holds no whole record"));
}

namespace {

// The module, when it says no
struct Refusing : PageSource {
	void want(std::span<const sb::Run>) override { throw Error("redoubt_standby", EBUSY); }
	void cancel() override {}
	bool produce(const Take &) override { return false; }
	bool finished() const override { return false; }
};

} // namespace

namespace {

// Zeroes, which fill no queue, read slowly
class Slow : public PageSource {
public:
	void want(std::span<const sb::Run> runs) override { left += runs[0].count; }
	void cancel() override { left = 0; }
	bool produce(const Take &take) override
	{
		if (!left)
			return false;
		usleep(1000);
		take(at, 1, 1, nullptr);
		at++;
		left--;
		return true;
	}
	bool finished() const override { return !left; }

	uint64_t left = 0, at = 0;
};

} // namespace

// A VM of zeroes, or one that the standby has, must not keep the loop from the link: no sign of life would be the end of that.
TEST(SenderTest, F4_what_fills_no_queue_leaves_the_others_their_turn)
{
	constexpr uint64_t frames = 200;
	Slow source;
	unsigned turns = 0, sent = 0;
	const std::vector<uint8_t> state(100);
	Sender sender(frames, source, Compress::off, Sender::Handlers{[](sb::Msg, std::span<const uint8_t>, std::span<const uint8_t>) {},
		[] { return true; }, [] { return true; }, [&sent](const sb::Digest &) { sent++; }, [](const std::string &) {}, {}, [&turns] { turns++; }});

	sender.begin(state);
	EXPECT_TRUE(sender.busy());
	EXPECT_LT(source.at, frames / 2);
	EXPECT_EQ(turns, 1u);
	bool yielded;
	do {
		const uint64_t before = source.at;

		yielded = !sender.pump();
		EXPECT_GT(source.at, before) << "a turn is never for nothing";
	} while (yielded);
	EXPECT_EQ(source.at, frames);
	EXPECT_EQ(sent, 1u);
	EXPECT_GE(turns, 3u);
}

TEST(SenderTest, F4_a_source_that_refuses_ends_the_attempt_and_nothing_else)
{
	Refusing source;
	std::string why;
	const std::vector<uint8_t> state(100);
	Sender sender(16, source, Compress::off, Sender::Handlers{[](sb::Msg, std::span<const uint8_t>, std::span<const uint8_t>) {},
		[] { return true; }, [] { return true; }, [](const sb::Digest &) {}, [&why](const std::string &text) { why = text; }});

	sender.begin(state);
	EXPECT_TRUE(has(why, "redoubt_standby")) << why;
	EXPECT_FALSE(sender.busy());
	why.clear();
	const sb::Run some{0, 2};
	sender.again({&some, 1}, false);
	EXPECT_TRUE(has(why, "redoubt_standby")) << why;
	EXPECT_FALSE(sender.busy());
}

TEST(SavedTest, F4_a_state_is_of_one_process_of_one_boot)
{
	Directory dir;
	const std::string path = dir / "saved";
	const pid_t child = fork();

	if (!child) {
		pause();
		_exit(0);
	}
	const Saved out{.pid = child, .started = start_time(child), .boot = 7, .frames = 16, .inode = 5, .state = std::vector<uint8_t>(100'000, 3)};
	write_saved(path, out);
	const Saved in = read_saved(path, 7);
	EXPECT_TRUE(in.is(child) && in.lives());
	EXPECT_FALSE(in.is(getpid()));
	EXPECT_EQ(in.state, out.state);
	EXPECT_EQ(in.frames, 16u);
	EXPECT_EQ(in.inode, 5u);
	EXPECT_EQ(read_saved(path, 8).pid, 0) << "another boot";
	kill(child, SIGKILL);
	for (int i = 0; i < 500 && start_time(child); i++)
		usleep(10'000);
	EXPECT_FALSE(in.is(child) || in.lives());
	waitpid(child, nullptr, 0);
	EXPECT_FALSE(in.lives());
	// Half of it, or somebody else's
	std::filesystem::resize_file(path, 1000);
	EXPECT_EQ(read_saved(path, 7).pid, 0);
	write_saved(path, out);
	std::filesystem::permissions(path, std::filesystem::perms::all);
	EXPECT_EQ(read_saved(path, 7).pid, 0);
	std::filesystem::remove(path);
	std::filesystem::create_symlink(dir / "other", path + ".new");
	write_saved(path, out);
	EXPECT_FALSE(std::filesystem::exists(dir / "other"));
}

TEST(JournalFileTest, F4_a_boot_has_a_number)
{
	Directory dir;

	EXPECT_NE(read_boot("/proc/sys/kernel/random/boot_id"), 0u);
	write_file(dir / "id", "01234567-89ab-cdef-0123-456789abcdeg\n");
	EXPECT_TRUE(has(error_of([&] { read_boot(dir / "id"); }), "is no boot id"));
}

TEST(Control, F1_lines_in_their_order_and_garbage_is_answered)
{
	Directory dir;
	Loop loop;
	std::vector<std::string> heard;
	ControlSocket control(loop, dir / "sock", [&](const Json &request, const ControlSocket::Reply &reply) {
		heard.push_back(request["command"]);
		// One that takes its time
		if (heard.back() == "slow")
			(void)loop.after(milliseconds(30), [reply] { reply({{"ok", true}, {"n", 1}}); });
		else
			reply({{"ok", true}, {"n", 2}});
	});
	sockaddr_un address{};
	const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
	const std::string text = "{\"command\": \"slow\"}\n{\"command\": \"quick\"}\nnonsense\n{\"command\": 3}\n";
	std::string got;
	struct stat st;

	ASSERT_EQ(stat((dir / "sock").c_str(), &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0600u) << "for root alone";
	address.sun_family = AF_UNIX;
	memcpy(address.sun_path, (dir / "sock").data(), (dir / "sock").size());
	ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
	ASSERT_EQ(write(fd.get(), text.data(), text.size()), ssize_t(text.size()));
	const auto lines = [&] { return std::count(got.begin(), got.end(), '\n'); };
	EXPECT_TRUE(run_until(loop, [&] {
		char buffer[1000];
		const ssize_t n = read(fd.get(), buffer, sizeof(buffer));
		if (n > 0)
			got.append(buffer, static_cast<size_t>(n));
		return lines() == 4;
	}));
	EXPECT_TRUE(got.starts_with("{\"n\":1,\"ok\":true}\n{\"n\":2,\"ok\":true}\n{\"error\":\"no command")) << got;
	EXPECT_EQ(heard.size(), 2u);
	// A line that does not end
	const std::string endless(ControlSocket::max_line + 1000, 'x');
	(void)!write(fd.get(), endless.data(), endless.size());
	EXPECT_TRUE(run_until(loop, [&] {
		char buffer[1000];
		return read(fd.get(), buffer, sizeof(buffer)) == 0;
	}));
}

} // namespace redoubt::agent
