// SPDX-License-Identifier: GPL-2.0
//
// F8: who is not the peer, byte for byte of his certificate, gets nowhere.

#include <csignal>

#include <openssl/pem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing.h"
#include "tls.h"

namespace redoubt::agent {

namespace {

// One end of a connection, and what has happened there
struct End {
	std::unique_ptr<TlsLink> link;
	std::optional<Channel> open;
	std::string closed, got;
	bool is_closed = false;
	uint64_t bytes = 0;

	void take(Loop &loop, int fd, Owned<SSL> ssl, bool keep = true)
	{
		link = std::make_unique<TlsLink>(loop, Fd(fd), std::move(ssl), TlsLink::Handlers{
			[this](Channel channel) { open = channel; },
			[this, keep](std::span<const uint8_t> data) {
				bytes += data.size();
				if (keep)
					got.append(data.begin(), data.end());
			},
			nullptr,
			[this](const std::string &why) {
				is_closed = true;
				closed = why;
			}});
	}
};

class Tls : public testing::Test {
protected:
	Tls()
	{
		signal(SIGPIPE, SIG_IGN);	// as main() has it
		for (const char *name : {"a", "b", "stranger"})
			make_key(dir / (std::string(name) + ".key"), dir / (std::string(name) + ".crt"), name);
		EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	}
	Identity identity(const std::string &own, const std::string &peer) const
	{
		return {dir / (own + ".key"), dir / (own + ".crt"), dir / (peer + ".crt")};
	}
	void connect(const Identity &caller, const Identity &listener, Channel channel = Channel::control)
	{
		server.take(loop, pair[1], listener.accept(pair[1]));
		client.take(loop, pair[0], caller.call(pair[0], channel));
	}
	bool both_open()
	{
		return run_until(loop, [this] { return client.open && server.open; });
	}

	Directory dir;
	Loop loop;
	int pair[2];
	End client, server;
};

// A client that is not ours, with whatever OpenSSL would let it do
Owned<SSL> foreign(int fd, int version, const std::string &certificate, const std::string &key, const std::string &alpn)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	SSL_CTX_set_min_proto_version(ctx, version);
	SSL_CTX_set_max_proto_version(ctx, version);
	if (!certificate.empty()) {
		EXPECT_EQ(SSL_CTX_use_certificate_file(ctx, certificate.c_str(), SSL_FILETYPE_PEM), 1);
		EXPECT_EQ(SSL_CTX_use_PrivateKey_file(ctx, key.c_str(), SSL_FILETYPE_PEM), 1);
	}
	Owned<SSL> ssl(SSL_new(ctx));
	const std::string list = static_cast<char>(alpn.size()) + alpn;
	if (!alpn.empty())
		SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const unsigned char *>(list.data()), static_cast<unsigned>(list.size()));
	SSL_set_fd(ssl.get(), fd);
	SSL_set_connect_state(ssl.get());
	SSL_CTX_free(ctx);
	return ssl;
}

const char *const control = "redoubt-standby/1 control";

} // namespace

TEST_F(Tls, F8_the_pair_talks_and_knows_what_for)
{
	const Identity a = identity("a", "b"), b = identity("b", "a");
	const std::string text = "hello";

	connect(a, b, Channel::pages);
	ASSERT_TRUE(both_open()) << client.closed << server.closed;
	EXPECT_EQ(*server.open, Channel::pages);
	EXPECT_EQ(*client.open, Channel::pages);
	client.link->send({reinterpret_cast<const uint8_t *>(text.data()), text.size()});
	server.link->send({reinterpret_cast<const uint8_t *>(text.data()), text.size()});
	EXPECT_TRUE(run_until(loop, [this] { return client.got == "hello" && server.got == "hello"; }));
}

TEST_F(Tls, F8_a_stranger_is_refused_by_who_listens)
{
	const Identity stranger = identity("stranger", "b"), b = identity("b", "a");

	connect(stranger, b);
	EXPECT_TRUE(run_until(loop, [this] { return server.is_closed; }));
	EXPECT_FALSE(server.open);
	EXPECT_EQ(server.got, "");
}

TEST_F(Tls, F8_a_stranger_is_refused_by_who_calls)
{
	const Identity a = identity("a", "b"), stranger = identity("stranger", "a");

	connect(a, stranger);
	EXPECT_TRUE(run_until(loop, [this] { return client.is_closed; }));
	EXPECT_FALSE(client.open);
	EXPECT_FALSE(server.open);
}

TEST_F(Tls, F8_no_certificate_an_old_version_another_protocol)
{
	const Identity b = identity("b", "a");
	const std::string own = dir / "a.crt", key = dir / "a.key";
	struct Try {
		int version;
		std::string certificate, key, alpn;
	};

	// The first proves that the way there is right.
	for (const Try &t : {Try{TLS1_3_VERSION, own, key, control}, Try{TLS1_3_VERSION, "", "", control}, Try{TLS1_2_VERSION, own, key, control},
			     Try{TLS1_3_VERSION, own, key, "http/1.1"}, Try{TLS1_3_VERSION, own, key, ""}}) {
		int fds[2];
		End one;

		ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
		const Fd mine(fds[0]);
		const Owned<SSL> ssl = foreign(fds[0], t.version, t.certificate, t.key, t.alpn);
		one.take(loop, fds[1], b.accept(fds[1]));
		EXPECT_TRUE(run_until(loop, [&] {
			SSL_do_handshake(ssl.get());
			return one.is_closed || one.open;
		}));
		const bool right = t.version == TLS1_3_VERSION && !t.certificate.empty() && t.alpn == control;
		EXPECT_EQ(one.open.has_value(), right) << t.version << " " << t.certificate << " " << t.alpn << " " << one.closed;
	}
	close(pair[0]);
	close(pair[1]);
}

TEST_F(Tls, F8_garbage)
{
	const Identity b = identity("b", "a");
	std::string garbage(5000, 'x');

	server.take(loop, pair[1], b.accept(pair[1]));
	ASSERT_EQ(write(pair[0], garbage.data(), garbage.size()), ssize_t(garbage.size()));
	EXPECT_TRUE(run_until(loop, [this] { return server.is_closed; }));
	EXPECT_FALSE(server.open);
	close(pair[0]);
}

TEST_F(Tls, F8_no_ticket_to_resume_with)
{
	const Identity b = identity("b", "a");
	const Owned<SSL> ssl = foreign(pair[0], TLS1_3_VERSION, dir / "a.crt", dir / "a.key", control);
	char byte;

	server.take(loop, pair[1], b.accept(pair[1]));
	EXPECT_TRUE(run_until(loop, [&] {
		SSL_do_handshake(ssl.get());
		return server.open.has_value();
	}));
	// A ticket would come behind the handshake.
	for (int i = 0; i < 10; i++) {
		loop.step(milliseconds(1));
		SSL_read(ssl.get(), &byte, 1);
	}
	EXPECT_FALSE(SSL_SESSION_is_resumable(SSL_get_session(ssl.get())));
	close(pair[0]);
}

TEST_F(Tls, F7_a_reader_that_holds_back_stops_the_sender)
{
	const Identity a = identity("a", "b"), b = identity("b", "a");
	const std::vector<uint8_t> block(64 * 1024, 7);
	uint64_t sent = 0;

	server.take(loop, pair[1], b.accept(pair[1]), false);
	client.take(loop, pair[0], a.call(pair[0], Channel::pages));
	ASSERT_TRUE(both_open());
	const auto fill = [&] {
		while (client.link->room()) {
			client.link->send(block);
			sent += block.size();
		}
	};
	server.link->hold_reading(true);
	for (int i = 0; i < 50; i++) {
		fill();
		loop.step(milliseconds(1));
	}
	const uint64_t held = sent;
	EXPECT_LT(held, 4u << 20) << "what nobody reads is not sent for ever";
	EXPECT_EQ(server.bytes, 0u);
	server.link->hold_reading(false);
	EXPECT_TRUE(run_until(loop, [&] {
		fill();
		return server.bytes > held + (8u << 20);
	}));
}

TEST_F(Tls, F8_keys_and_certificates_that_will_not_do)
{
	const std::string a_key = dir / "a.key", a = dir / "a.crt", b = dir / "b.crt";

	EXPECT_TRUE(has(error_of([&] { Identity(dir / "none", a, b); }), "No such file"));
	EXPECT_TRUE(has(error_of([&] { Identity(a, a, b); }), "chmod 600")) << "a certificate is for everybody to read";
	EXPECT_TRUE(has(error_of([&] { Identity(dir / "b.key", a, b); }), "not the certificate's"));
	EXPECT_TRUE(has(error_of([&] { Identity(a_key, a, a); }), "our own"));
	write_file(dir / "text", "no certificate");
	EXPECT_TRUE(has(error_of([&] { Identity(a_key, a, dir / "text"); }), "is no certificate"));
	EXPECT_TRUE(has(error_of([&] { make_key(a_key, dir / "new.crt", "a"); }), "File exists")) << "a key is not overwritten";
	chmod(a_key.c_str(), 0640);
	EXPECT_TRUE(has(error_of([&] { Identity(a_key, a, b); }), "chmod 600"));

	// Another kind of key
	const Owned<EVP_PKEY> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
	const Owned<X509> cert(X509_new());
	X509_set_pubkey(cert.get(), key.get());
	X509_gmtime_adj(X509_getm_notBefore(cert.get()), 0);
	X509_gmtime_adj(X509_getm_notAfter(cert.get()), 1000);
	X509_sign(cert.get(), key.get(), EVP_sha256());
	FILE *file = fopen((dir / "p256.crt").c_str(), "w");
	PEM_write_X509(file, cert.get());
	fclose(file);
	EXPECT_TRUE(has(error_of([&] { Identity(a_key, a, dir / "p256.crt"); }), "Ed25519"));
	close(pair[0]);
	close(pair[1]);
}

TEST_F(Tls, F8_fingerprints_tell_keys_apart)
{
	const std::string a = fingerprint(dir / "a.crt"), b = fingerprint(dir / "b.crt");

	EXPECT_EQ(a.size(), 32 * 3 - 1u);
	EXPECT_NE(a, b);
	close(pair[0]);
	close(pair[1]);
}

} // namespace redoubt::agent
