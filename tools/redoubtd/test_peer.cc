// SPDX-License-Identifier: GPL-2.0
//
// F4, F8: the link comes back by itself, whatever a call has failed by.

#include <csignal>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peer.h"
#include "testing.h"

namespace redoubt::agent {

namespace {

uint16_t free_port()
{
	sockaddr_in address{};
	socklen_t size = sizeof(address);
	const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
	EXPECT_EQ(getsockname(fd.get(), reinterpret_cast<sockaddr *>(&address), &size), 0);
	return ntohs(address.sin_port);
}

class PeerTest : public testing::Test {
protected:
	PeerTest()
	{
		signal(SIGPIPE, SIG_IGN);	// as main() has it
		for (const std::string name : {"a", "b"})
			make_key(dir / (name + ".key"), dir / (name + ".crt"), name);
		a = config("a", "b");
		b = config("b", "a");
		b.listen_port = a.peer.port = free_port();
	}
	Config config(const std::string &me, const std::string &other) const
	{
		Config out;

		out.me = me;
		out.listen_address = "127.0.0.1";
		out.key = dir / (me + ".key");
		out.certificate = dir / (me + ".crt");
		out.peer.name = other;
		out.peer.address = "127.0.0.1";
		out.peer.certificate = dir / (other + ".crt");
		return out;
	}
	static Peer::Handlers handlers()
	{
		return {[](uint64_t) {}, [](const std::string &) {}, [](const sb::Header &, const sb::Body &) {}, [] {}};
	}

	Directory dir;
	Loop loop;
	Config a, b;
};

} // namespace

TEST_F(PeerTest, F4_a_call_that_is_refused_at_once_is_made_again)
{
	// TCP to everybody: an errno from connect() itself, as with an interface that is down.
	a.peer.address = "255.255.255.255";
	Peer caller(loop, a, 1, handlers()), listener(loop, b, 2, handlers());

	listener.start();
	caller.start();
	EXPECT_FALSE(run_until(loop, [&] { return caller.up(); }, milliseconds(700)));
	a.peer.address = "127.0.0.1";
	EXPECT_TRUE(run_until(loop, [&] { return caller.up() && listener.up(); }));
}

// Whoever was busy himself has not listened: that is no silence of the other one's.
TEST_F(PeerTest, F4_a_loop_that_was_held_up_does_not_blame_the_peer)
{
	const milliseconds before = Peer::silence;
	Peer::silence = milliseconds(2'500);
	Peer caller(loop, a, 1, handlers()), listener(loop, b, 2, handlers());

	listener.start();
	caller.start();
	EXPECT_TRUE(run_until(loop, [&] { return caller.up() && listener.up(); }));
	usleep(4'000'000);
	EXPECT_FALSE(run_until(loop, [&] { return !caller.up() || !listener.up(); }, milliseconds(1'500)));
	Peer::silence = before;
}

// room() comes once for many wishes, behind what waits, and not without a link.
TEST_F(PeerTest, F4_who_has_more_to_send_goes_on)
{
	unsigned rooms = 0;
	auto counts = handlers();
	counts.room = [&rooms] { rooms++; };
	Peer caller(loop, a, 1, counts), listener(loop, b, 2, handlers());

	caller.go_on();
	run_until(loop, [] { return false; }, milliseconds(50));
	EXPECT_EQ(rooms, 0u);
	listener.start();
	caller.start();
	EXPECT_TRUE(run_until(loop, [&] { return caller.up() && listener.up(); }));
	run_until(loop, [] { return false; }, milliseconds(50));
	const unsigned at_first = rooms;
	caller.go_on();
	caller.go_on();
	EXPECT_EQ(rooms, at_first);
	run_until(loop, [] { return false; }, milliseconds(50));
	EXPECT_EQ(rooms, at_first + 1);
}

TEST_F(PeerTest, F8_another_address_is_not_spoken_to)
{
	b.peer.address = "127.0.0.3";
	Peer caller(loop, a, 1, handlers()), listener(loop, b, 2, handlers());

	listener.start();
	caller.start();
	EXPECT_TRUE(run_until(loop, [&] { return listener.refused() >= 2; }));
	EXPECT_FALSE(caller.up() || listener.up());
	b.peer.address = "127.0.0.1";
	EXPECT_TRUE(run_until(loop, [&] { return caller.up() && listener.up(); }));
}

} // namespace redoubt::agent
