// SPDX-License-Identifier: GPL-2.0
/*
 * A database's client that knows what it was promised.
 *
 *   pg-client load HOST LOG STOP [WORKERS]   transactions, one after the other in each worker, until the file STOP exists
 *   pg-client verify HOST LOG                is every transaction there whose commit was acknowledged?
 *
 * A transaction of worker w inserts row (w, n) and sets w's counter to n. Its COMMIT is acknowledged: a line "ack w n MS" goes
 * to LOG, on its disk (O_DSYNC) before the next one begins; MS is the time since the client's start. The connection was lost
 * before the answer: "unknown w n MS", and a new connection goes on with n + 1; such a row may be there or not. So may the one
 * behind the last of a worker whose client died; an unknown line for it is the first that the next client writes. COMMIT was
 * never said: "failed w n MS"; such a row must not be there.
 * "load" ends with 0 if something was acknowledged; "verify" with 0 if nothing is missing and nothing is there that was not sent.
 */
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <libpq-fe.h>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace
{
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Row = std::pair<int, std::int64_t>;

struct Close {
	void operator()(PGconn *c) const { PQfinish(c); }
	void operator()(PGresult *r) const { PQclear(r); }
};
using Connection = std::unique_ptr<PGconn, Close>;
using Result = std::unique_ptr<PGresult, Close>;

constexpr const char *schema =
	"CREATE TABLE IF NOT EXISTS rows (worker int, n bigint, body text NOT NULL, PRIMARY KEY (worker, n));"
	"CREATE TABLE IF NOT EXISTS counters (worker int PRIMARY KEY, n bigint NOT NULL)";
// What a row must hold, by its key
constexpr const char *body = "repeat(md5($1::int || ':' || $2::bigint), 8)";

/* The server may be out of reach for as long as a failover takes: a connection is given up after two minutes of silence. */
Connection connect(const std::string &host)
{
	const std::string info = "host=" + host + " port=5432 dbname=postgres user=postgres connect_timeout=10 keepalives=1 "
		"keepalives_idle=20 keepalives_interval=20 keepalives_count=5 tcp_user_timeout=120000 application_name=pg-client";
	Connection c(PQconnectdb(info.c_str()));

	return PQstatus(c.get()) == CONNECTION_OK ? std::move(c) : nullptr;
}

bool said_yes(PGconn *c, const Result &r)
{
	const ExecStatusType s = PQresultStatus(r.get());

	if (s == PGRES_COMMAND_OK || s == PGRES_TUPLES_OK)
		return true;
	std::fprintf(stderr, "pg-client: %s", PQerrorMessage(c));
	return false;
}

bool run(PGconn *c, const char *sql)
{
	return said_yes(c, Result(PQexec(c, sql)));
}

bool run(PGconn *c, const std::string &sql, int worker, std::int64_t n)
{
	const std::string w = std::to_string(worker), i = std::to_string(n);
	const char *values[] = { w.c_str(), i.c_str() };

	return said_yes(c, Result(PQexecParams(c, sql.c_str(), 2, nullptr, values, nullptr, nullptr, 0)));
}

class Log {
public:
	explicit Log(const char *path) : fd(open(path, O_WRONLY | O_CREAT | O_APPEND | O_DSYNC | O_CLOEXEC, 0644)) {}
	~Log() { close(fd); }
	Log(const Log &) = delete;
	Log &operator=(const Log &) = delete;

	[[nodiscard]] bool is_open() const { return fd >= 0; }

	/* On the disk when it returns. What cannot be logged must not be counted on: the end. */
	void add(const char *what, int worker, std::int64_t n)
	{
		const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began).count();
		char line[80];
		const int len = std::snprintf(line, sizeof(line), "%s %d %" PRId64 " %" PRId64 "\n", what, worker, n, std::int64_t{ms});
		const std::lock_guard guard(lock);

		if (write(fd, line, static_cast<std::size_t>(len)) != len) {
			std::perror("pg-client: log");
			std::_Exit(1);
		}
	}

private:
	int fd;
	std::mutex lock;	// one line after the other; nothing is taken inside
	const Clock::time_point began = Clock::now();
};

enum class Outcome { acknowledged, not_sent, unknown };

Outcome transact(PGconn *c, int worker, std::int64_t n)
{
	static const std::string insert = std::string("INSERT INTO rows VALUES ($1, $2, ") + body + ")";
	static const std::string count = "INSERT INTO counters VALUES ($1, $2) ON CONFLICT (worker) DO UPDATE SET n = EXCLUDED.n";

	if (!run(c, "BEGIN") || !run(c, insert, worker, n) || !run(c, count, worker, n))
		return Outcome::not_sent;	// COMMIT was never said
	const Result r(PQexec(c, "COMMIT"));

	// A failed transaction's COMMIT is answered with ROLLBACK.
	if (PQresultStatus(r.get()) == PGRES_COMMAND_OK && !std::strcmp(PQcmdStatus(r.get()), "COMMIT"))
		return Outcome::acknowledged;
	std::fprintf(stderr, "pg-client: COMMIT: %s", PQerrorMessage(c));
	return Outcome::unknown;
}

std::int64_t work(const std::string &host, Log &log, const char *stop, int worker, std::int64_t n)
{
	std::int64_t acknowledged = 0;
	Connection c;

	while (access(stop, F_OK)) {
		if (!c && !(c = connect(host))) {
			std::this_thread::sleep_for(500ms);
			continue;
		}
		switch (transact(c.get(), worker, ++n)) {
		case Outcome::acknowledged:
			log.add("ack", worker, n);
			++acknowledged;
			continue;
		case Outcome::unknown:
			log.add("unknown", worker, n);
			break;
		case Outcome::not_sent:
			log.add("failed", worker, n);
			break;
		}
		c.reset();
	}
	return acknowledged;
}

struct History {
	std::set<Row> acknowledged, unknown;
	std::map<int, std::int64_t> last;
};

History read_log(const char *path)
{
	History h;
	std::ifstream in(path);
	std::string line;

	while (std::getline(in, line)) {
		std::istringstream words(line);
		std::string what;
		int worker = 0;
		std::int64_t n = 0;

		if (!(words >> what >> worker >> n))
			continue;	// cut short when this host's power went: it was not counted on
		if (what == "ack")
			h.acknowledged.insert({ worker, n });
		else if (what == "unknown")
			h.unknown.insert({ worker, n });
		h.last[worker] = std::max(h.last[worker], n);
	}
	return h;
}

int load(const std::string &host, const char *path, const char *stop, int workers)
{
	const History before = read_log(path);
	Log log(path);
	Connection c;

	if (!log.is_open()) {
		std::perror(path);
		return 1;
	}
	while (!c && access(stop, F_OK))
		c = connect(host);
	if (!c || !run(c.get(), schema))
		return 1;
	c.reset();

	std::vector<std::int64_t> done(static_cast<std::size_t>(workers));
	std::vector<std::thread> threads;

	for (int w = 0; w < workers; ++w) {
		const auto last = before.last.find(w);
		const std::int64_t n = last == before.last.end() ? 0 : last->second + 1;

		if (n)
			log.add("unknown", w, n);
		threads.emplace_back([&, w, n] { done[static_cast<std::size_t>(w)] = work(host, log, stop, w, n); });
	}
	std::int64_t sum = 0;
	for (std::size_t w = 0; w < threads.size(); ++w) {
		threads[w].join();
		sum += done[w];
	}
	std::printf("acknowledged %" PRId64 "\n", sum);
	return sum ? 0 : 1;
}

int verify(const std::string &host, const char *path)
{
	const History h = read_log(path);
	const Connection c = connect(host);

	if (!c) {
		std::fprintf(stderr, "pg-client: %s does not answer\n", host.c_str());
		return 1;
	}
	const Result rows(PQexec(c.get(), "SELECT worker, n, body = repeat(md5(worker || ':' || n), 8) FROM rows"));
	const Result torn(PQexec(c.get(), "SELECT worker FROM (SELECT worker, max(n) AS n FROM rows GROUP BY worker) r "
				 "FULL JOIN counters c USING (worker) WHERE r.n IS DISTINCT FROM c.n"));

	if (!said_yes(c.get(), rows) || !said_yes(c.get(), torn))
		return 1;
	std::set<Row> there;
	int wrong = 0;

	for (int i = 0; i < PQntuples(rows.get()); ++i) {
		there.insert({ std::atoi(PQgetvalue(rows.get(), i, 0)), std::atoll(PQgetvalue(rows.get(), i, 1)) });
		wrong += PQgetvalue(rows.get(), i, 2)[0] != 't';
	}
	std::size_t missing = 0, extra = 0, kept = 0;

	for (const Row &row : h.acknowledged)
		if (!there.contains(row) && ++missing <= 20)
			std::printf("missing: worker %d, row %" PRId64 ", which was acknowledged\n", row.first, row.second);
	for (const Row &row : there) {
		if (h.unknown.contains(row))
			++kept;
		else if (!h.acknowledged.contains(row) && ++extra <= 20)
			std::printf("there, but never sent to its end: worker %d, row %" PRId64 "\n", row.first, row.second);
	}
	std::printf("acknowledged %zu, there %zu, missing %zu, unknown %zu (of them there %zu), not sent but there %zu, wrong %d, "
		    "half transactions %d\n", h.acknowledged.size(), there.size(), missing, h.unknown.size(), kept, extra, wrong,
		    PQntuples(torn.get()));
	return !h.acknowledged.empty() && !missing && !extra && !wrong && !PQntuples(torn.get()) ? 0 : 1;
}
} // namespace

int main(int argc, char **argv)
{
	if (argc == 5 && !std::strcmp(argv[1], "load"))
		return load(argv[2], argv[3], argv[4], 2);
	if (argc == 6 && !std::strcmp(argv[1], "load") && std::atoi(argv[5]) > 0 && std::atoi(argv[5]) <= 64)
		return load(argv[2], argv[3], argv[4], std::atoi(argv[5]));
	if (argc == 4 && !std::strcmp(argv[1], "verify"))
		return verify(argv[2], argv[3]);
	std::fprintf(stderr, "usage: pg-client load HOST LOG STOP [WORKERS]\n       pg-client verify HOST LOG\n");
	return 2;
}
