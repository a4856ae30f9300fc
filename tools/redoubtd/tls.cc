// SPDX-License-Identifier: GPL-2.0

#include "tls.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace redoubt::agent {

namespace {

constexpr std::string_view protocols[] = {"redoubt-standby/1 control", "redoubt-standby/1 pages"};

std::string openssl_error()
{
	const unsigned long code = ERR_get_error();
	const char *reason = code ? ERR_reason_error_string(code) : nullptr;

	ERR_clear_error();
	return reason ? reason : "unknown error";
}

[[noreturn]] void fail(const std::string &what)
{
	throw Error(what + ": " + openssl_error());
}

Owned<BIO> open_file(const std::string &path)
{
	Owned<BIO> bio(BIO_new_file(path.c_str(), "r"));

	if (!bio) {
		ERR_clear_error();
		throw Error("open " + path, errno);
	}
	return bio;
}

Owned<X509> read_certificate(const std::string &path)
{
	const Owned<BIO> bio = open_file(path);
	Owned<X509> cert(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));

	if (!cert)
		fail(path + " is no certificate");
	if (EVP_PKEY_get_id(X509_get0_pubkey(cert.get())) != EVP_PKEY_ED25519)
		throw Error(path + " is not for an Ed25519 key");
	return cert;
}

std::string der(X509 *cert)
{
	const int size = i2d_X509(cert, nullptr);
	std::string bytes(size > 0 ? static_cast<size_t>(size) : 0, '\0');
	auto *out = reinterpret_cast<unsigned char *>(bytes.data());

	if (size <= 0 || i2d_X509(cert, &out) != size)
		fail("certificate");
	return bytes;
}

// In place of all checks of chains: it is this one or it is a stranger.
int check_peer(X509_STORE_CTX *store, void *pinned)
{
	const auto &want = *static_cast<const std::string *>(pinned);
	X509 *cert = X509_STORE_CTX_get0_cert(store);

	if (cert && der(cert) == want) {
		X509_STORE_CTX_set_error(store, X509_V_OK);
		return 1;
	}
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
	return 0;
}

int choose_protocol(SSL *, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *)
{
	for (const std::string_view name : protocols) {
		if (in_len == name.size() + 1 && in[0] == name.size() && !memcmp(in + 1, name.data(), name.size())) {
			*out = in + 1;
			*out_len = in[0];
			return SSL_TLSEXT_ERR_OK;
		}
	}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

Owned<SSL_CTX> make_context(const SSL_METHOD *method, X509 *cert, EVP_PKEY *key, std::string &pinned)
{
	Owned<SSL_CTX> context(SSL_CTX_new(method));
	SSL_CTX *ctx = context.get();

	if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) || !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") ||
	    !SSL_CTX_set1_groups_list(ctx, "X25519") || !SSL_CTX_set1_sigalgs_list(ctx, "ed25519") ||
	    SSL_CTX_use_certificate(ctx, cert) != 1 || SSL_CTX_use_PrivateKey(ctx, key) != 1)
		fail("TLS");
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_max_early_data(ctx, 0);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
	SSL_CTX_set_cert_verify_callback(ctx, check_peer, &pinned);
	SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, nullptr);
	return context;
}

// A new file only we may read, unless @mode says more.
Owned<BIO> create_file(const std::string &path, mode_t mode)
{
	const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0)
		throw Error("create " + path, errno);
	return Owned<BIO>(BIO_new_fd(fd, BIO_CLOSE));
}

} // namespace

const char *channel_name(Channel channel)
{
	return channel == Channel::control ? "control" : "pages";
}

Identity::Identity(const std::string &key, const std::string &certificate, const std::string &peer_certificate)
{
	const Owned<X509> own = read_certificate(certificate), peer = read_certificate(peer_certificate);
	const Owned<BIO> bio = open_file(key);
	struct stat st;

	if (stat(key.c_str(), &st) || (st.st_mode & 077))
		throw Error(key + " can be read by others than its owner: chmod 600");
	const Owned<EVP_PKEY> secret(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
	if (!secret)
		fail(key + " is no private key");
	if (X509_check_private_key(own.get(), secret.get()) != 1)
		fail(key + " is not the certificate's, " + certificate);
	pinned_ = der(peer.get());
	if (pinned_ == der(own.get()))
		throw Error(peer_certificate + " is our own certificate");
	server_ = make_context(TLS_server_method(), own.get(), secret.get(), pinned_);
	client_ = make_context(TLS_client_method(), own.get(), secret.get(), pinned_);
}

Owned<SSL> Identity::make(SSL_CTX *context, int fd) const
{
	Owned<SSL> ssl(SSL_new(context));

	if (!ssl || !SSL_set_fd(ssl.get(), fd))
		fail("TLS");
	return ssl;
}

Owned<SSL> Identity::accept(int fd) const
{
	Owned<SSL> ssl = make(server_.get(), fd);

	SSL_set_accept_state(ssl.get());
	return ssl;
}

Owned<SSL> Identity::call(int fd, Channel channel) const
{
	Owned<SSL> ssl = make(client_.get(), fd);
	const std::string_view name = protocols[static_cast<size_t>(channel)];
	const std::string list = static_cast<char>(name.size()) + std::string(name);

	if (SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const unsigned char *>(list.data()), static_cast<unsigned>(list.size())))
		fail("TLS");
	SSL_set_connect_state(ssl.get());
	return ssl;
}

void make_key(const std::string &key, const std::string &certificate, const std::string &name)
{
	const Owned<EVP_PKEY> secret(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
	const Owned<X509> cert(X509_new());
	uint64_t serial;

	if (!secret || !cert)
		fail("make a key");
	// By the serial number two certificates of one name differ for people, too.
	if (getentropy(&serial, sizeof(serial)))
		throw Error("getentropy", errno);
	X509_NAME *subject = X509_get_subject_name(cert.get());
	if (!X509_set_version(cert.get(), X509_VERSION_3) || !ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert.get()), serial >> 1) ||
	    !ASN1_TIME_set_string_X509(X509_getm_notBefore(cert.get()), "19700101000000Z") ||
	    !ASN1_TIME_set_string_X509(X509_getm_notAfter(cert.get()), "99991231235959Z") ||
	    !X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char *>(name.c_str()), -1, -1, 0) ||
	    !X509_set_issuer_name(cert.get(), subject) || !X509_set_pubkey(cert.get(), secret.get()) ||
	    !X509_sign(cert.get(), secret.get(), nullptr))
		fail("make a certificate");
	const Owned<BIO> out = create_file(key, 0600), pub = create_file(certificate, 0644);
	if (!PEM_write_bio_PKCS8PrivateKey(out.get(), secret.get(), nullptr, nullptr, 0, nullptr, nullptr))
		fail("write " + key);
	if (!PEM_write_bio_X509(pub.get(), cert.get()))
		fail("write " + certificate);
}

std::string fingerprint(const std::string &certificate)
{
	const Owned<X509> cert = read_certificate(certificate);
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned size;
	std::string out;

	if (!X509_digest(cert.get(), EVP_sha256(), digest, &size))
		fail(certificate);
	for (unsigned i = 0; i < size; i++) {
		char text[4];

		snprintf(text, sizeof(text), i ? ":%02X" : "%02X", digest[i]);
		out += text;
	}
	return out;
}

TlsLink::TlsLink(Loop &loop, Fd socket, Owned<SSL> ssl, Handlers handlers)
	: loop_(loop), socket_(std::move(socket)), ssl_(std::move(ssl)), handlers_(std::move(handlers))
{
	loop_.watch(socket_.get(), EPOLLIN | EPOLLOUT, [this](uint32_t) { on_ready(); });
}

TlsLink::~TlsLink()
{
	*gone_ = true;
	loop_.forget(socket_.get());
	// Only a farewell, and only if it can be said at once.
	if (open_ && !closed_)
		SSL_shutdown(ssl_.get());
	ERR_clear_error();
}

void TlsLink::abandon()
{
	handlers_.closed = nullptr;
	if (open_ && !closed_)
		SSL_shutdown(ssl_.get());
	ERR_clear_error();
	close("");
}

void TlsLink::close(const std::string &why)
{
	if (closed_)
		return;
	closed_ = true;
	open_ = false;
	loop_.forget(socket_.get());
	const auto handler = std::move(handlers_.closed);
	if (handler)
		handler(why);
}

bool TlsLink::would_block(int ret)
{
	const int error = SSL_get_error(ssl_.get(), ret);

	want_write_ = error == SSL_ERROR_WANT_WRITE;
	return want_write_ || error == SSL_ERROR_WANT_READ;
}

std::string TlsLink::reason(int ret) const
{
	const int saved = errno;

	switch (SSL_get_error(ssl_.get(), ret)) {
	case SSL_ERROR_ZERO_RETURN:
		return "closed by the peer";
	case SSL_ERROR_SYSCALL:
		ERR_clear_error();
		return saved ? strerror(saved) : "cut";
	default:
		return "TLS: " + openssl_error();
	}
}

bool TlsLink::handshake()
{
	ERR_clear_error();
	errno = 0;
	const int ret = SSL_do_handshake(ssl_.get());

	if (ret != 1) {
		if (!would_block(ret))
			close(reason(ret));
		return false;
	}
	const unsigned char *name;
	unsigned length;
	SSL_get0_alpn_selected(ssl_.get(), &name, &length);
	const std::string_view chosen(reinterpret_cast<const char *>(name), name ? length : 0);
	for (const Channel channel : {Channel::control, Channel::pages}) {
		if (chosen != protocols[static_cast<size_t>(channel)])
			continue;
		open_ = true;
		const auto gone = gone_;
		handlers_.open(channel);
		return !*gone && !closed_;
	}
	close("the peer speaks another protocol");
	return false;
}

// False: the link is closed, or destroyed.
bool TlsLink::receive()
{
	static thread_local uint8_t buffer[64 * 1024];
	const auto gone = gone_;

	const auto until = Loop::Clock::now() + Loop::turn;

	// Not for ever: others want their turn, and a few bytes may be many pages. What OpenSSL still holds epoll does not see.
	for (int i = 0; i < 16 && Loop::Clock::now() < until; i++) {
		if (held_)
			return true;
		ERR_clear_error();
		errno = 0;
		const int ret = SSL_read(ssl_.get(), buffer, sizeof(buffer));
		if (ret <= 0) {
			if (would_block(ret))
				return true;
			close(reason(ret));
			return false;
		}
		handlers_.data({buffer, static_cast<size_t>(ret)});
		if (*gone || closed_)
			return false;
	}
	loop_.soon([this, gone] {
		if (!*gone && !closed_)
			on_ready();
	});
	return true;
}

bool TlsLink::flush()
{
	while (queued()) {
		ERR_clear_error();
		errno = 0;
		const int ret = SSL_write(ssl_.get(), out_.data() + sent_, static_cast<int>(queued()));
		if (ret <= 0) {
			if (would_block(ret))
				break;
			close(reason(ret));
			return false;
		}
		sent_ += static_cast<size_t>(ret);
		total_ += static_cast<uint64_t>(ret);
	}
	if (!queued()) {
		out_.clear();
		sent_ = 0;
	} else if (sent_ > high_water) {
		out_.erase(out_.begin(), out_.begin() + static_cast<ptrdiff_t>(sent_));
		sent_ = 0;
	}
	return true;
}

void TlsLink::update_events()
{
	if (!closed_)
		loop_.change(socket_.get(), (held_ && open_ ? 0u : EPOLLIN) | (want_write_ || again_ || (open_ && queued()) ? EPOLLOUT : 0u));
}

void TlsLink::on_ready()
{
	const auto gone = gone_;

	want_write_ = false;
	if (!open_ && !handshake()) {
		if (!*gone)
			update_events();
		return;
	}
	if (!receive() || !flush())
		return;
	if (handlers_.drained && queued() < low_water) {
		handlers_.drained();
		if (*gone || closed_)
			return;
		// It may have more when this is out, even if that is at once.
		again_ = queued() > 0;
		if (!flush())
			return;
	}
	update_events();
	again_ = false;
}

void TlsLink::send(std::span<const uint8_t> bytes)
{
	if (!open_)
		return;
	out_.insert(out_.end(), bytes.begin(), bytes.end());
	// Not here: closed() inside send() is a surprise to its caller.
	loop_.change(socket_.get(), (held_ ? 0u : EPOLLIN) | EPOLLOUT);
}

void TlsLink::hold_reading(bool hold)
{
	if (held_ == hold)
		return;
	held_ = hold;
	if (closed_)
		return;
	update_events();
	if (!hold) {
		loop_.soon([this, gone = gone_] {
			if (!*gone && !closed_)
				on_ready();
		});
	}
}

} // namespace redoubt::agent
