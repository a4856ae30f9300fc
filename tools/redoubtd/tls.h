// SPDX-License-Identifier: GPL-2.0
//
// TLS 1.3 between two agents that know each other's certificate byte for byte.
// No authority, no names, no dates (a host that lost its power may have lost its
// clock), no resumption, no early data, nothing below 1.3.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <openssl/ssl.h>

#include "loop.h"

namespace redoubt::agent {

// What a connection is for is agreed in the handshake (ALPN), with the version.
enum class Channel { control, pages };
const char *channel_name(Channel channel);

struct Free {
	void operator()(SSL_CTX *p) const { SSL_CTX_free(p); }
	void operator()(SSL *p) const { SSL_free(p); }
	void operator()(X509 *p) const { X509_free(p); }
	void operator()(EVP_PKEY *p) const { EVP_PKEY_free(p); }
	void operator()(BIO *p) const { BIO_free(p); }
};
template <typename T> using Owned = std::unique_ptr<T, Free>;

// Ours and the peer's: what both ends of each connection are held to.
class Identity {
public:
	// Files: PEM. Throws if one cannot be read, is no Ed25519, or the key is not the
	// certificate's; also if others than its owner may read the key.
	Identity(const std::string &key, const std::string &certificate, const std::string &peer_certificate);

	Owned<SSL> accept(int fd) const;
	Owned<SSL> call(int fd, Channel channel) const;

private:
	Owned<SSL> make(SSL_CTX *context, int fd) const;

	std::string pinned_;		// the peer's certificate, DER; the contexts point to it
	Owned<SSL_CTX> server_, client_;
};

// Makes both files, which must not exist; the certificate's name is for people only.
void make_key(const std::string &key, const std::string &certificate, const std::string &name);
// SHA-256 over the DER form, as `openssl x509 -fingerprint -sha256` shows it.
std::string fingerprint(const std::string &certificate);

// A connection on the loop. Nothing blocks: what is sent waits in memory, and the
// sender watches queued().
class TlsLink {
public:
	struct Handlers {
		std::function<void(Channel)> open;		// the peer is who it should be
		std::function<void(std::span<const uint8_t>)> data;
		std::function<void()> drained;			// there is room: queued() is below low_water
		std::function<void(const std::string &why)> closed;	// once; the link may be destroyed in it
	};
	static constexpr size_t low_water = 256 * 1024, high_water = 1024 * 1024;

	TlsLink(Loop &loop, Fd socket, Owned<SSL> ssl, Handlers handlers);
	~TlsLink();
	TlsLink(const TlsLink &) = delete;

	// Once, and not on the way of a frozen VM: the largest there is to be queued.
	void reserve() { out_.reserve(2 * high_water); }
	void send(std::span<const uint8_t> bytes);
	// What would be sent next is made only when there is room.
	bool room() const { return open_ && queued() < high_water; }
	size_t queued() const { return out_.size() - sent_; }
	bool is_open() const { return open_; }
	uint64_t bytes_sent() const { return total_; }
	// Back-pressure towards the peer: TCP's window does the rest.
	void hold_reading(bool hold);
	// No handler is called from here on.
	void abandon();

private:
	void on_ready();
	bool handshake();
	bool receive();
	bool flush();
	void update_events();
	void close(const std::string &why);
	// Of the last call: true if it is to be tried again later.
	bool would_block(int ret);
	std::string reason(int ret) const;

	Loop &loop_;
	Fd socket_;
	Owned<SSL> ssl_;
	Handlers handlers_;
	std::vector<uint8_t> out_;
	size_t sent_ = 0;		// of out_
	uint64_t total_ = 0;
	bool open_ = false, closed_ = false, held_ = false, want_write_ = false, again_ = false;
	// Set in the destructor, for handlers that destroy us.
	std::shared_ptr<bool> gone_ = std::make_shared<bool>(false);
};

} // namespace redoubt::agent
