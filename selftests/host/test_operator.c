// SPDX-License-Identifier: GPL-2.0
/*
 * The operator's side of domains by the command line: redoubtctl and the module, and what the
 * guest's domains have then. What the commands refuse by themselves is tested in tools/lib.
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dom.h"
#include "driver.h"
#include "tap.h"

#define RAM	(64ul << 20)
#define DIR	"/tmp/operator"

static struct vm *vm;
static struct rdt *r;

/* What the last command said, both ways. */
static char said[65536];

/* Its exit status; -1: it was killed. */
__attribute__((format(printf, 1, 2)))
static int ctl(const char *fmt, ...)
{
	char line[1024] = "redoubtctl ";
	size_t n = strlen(line), have = 0;
	va_list args;
	FILE *out;
	int status;

	va_start(args, fmt);
	n += vsnprintf(line + n, sizeof(line) - n, fmt, args);
	va_end(args);
	snprintf(line + n, sizeof(line) - n, " 2>&1");
	out = popen(line, "r");
	if (!out)
		tap_bail("popen");
	while (have < sizeof(said) - 1) {
		size_t got = fread(said + have, 1, sizeof(said) - 1 - have, out);

		if (!got)
			break;
		have += got;
	}
	said[have] = 0;
	status = pclose(out);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define ctl_is(want, name, ...)						\
	do {								\
		int _s = ctl(__VA_ARGS__);				\
		if (!is(_s, want, name))				\
			tap_diag("it said: %s", said);			\
	} while (0)

#define said_is(part, ...)						\
	do {								\
		if (!ok(strstr(said, part), __VA_ARGS__))		\
			tap_diag("it said: %s", said);			\
	} while (0)

static void put_file(const char *path, const void *data, size_t bytes, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes || fchmod(fd, mode))
		tap_bail("%s", path);
	close(fd);
}

static void measurement(const struct dom *d, char hex[65])
{
	struct rdt_domain_info info = { .view = (uint8_t)d->id };

	if (ioctl(r->fd, RDT_VM_DOMAIN, &info) || info.id != d->id)
		tap_bail("RDT_VM_DOMAIN");
	for (int i = 0; i < 32; i++)
		sprintf(hex + 2 * i, "%02x", info.measurement[i]);
}

/* A key of 16 bytes as two immediates would have it, and a word elsewhere. */
static void put_manifest(const char *path, const char *hex)
{
	char text[1024];
	int n = snprintf(text, sizeof(text),
			 "{ \"redoubt_manifest\": 1, \"name\": \"a test\", \"measurement\": \"%s\",\n"
			 "  \"placeholders\": [\n"
			 "    { \"name\": \"key\", \"offset\": %lu, \"length\": 8 },\n"
			 "    { \"name\": \"key\", \"offset\": \"%#lx\", \"length\": 8, \"from\": 8 },\n"
			 "    { \"name\": \"pin\", \"offset\": %lu, \"length\": 8 } ] }\n",
			 hex, DOM_DATA + 64, DOM_DATA + 88, DOM_DATA + PAGE_SIZE);

	put_file(path, text, n, 0644);
}

static uint64_t has(const struct dom *d, uint64_t offset)
{
	return dom_call(d, DOM_LOAD, DOM_GVA + offset, 0);
}

static uint64_t word(const char text[8])
{
	uint64_t w;

	memcpy(&w, text, 8);
	return w;
}

static void attach(void)
{
	struct rdt_open o = {};

	vm = vm_create(RAM, 2, 0);
	ctl_is(0, "C9 the operator attaches a VM, and says what it may have",
	       "attach --pid %d --domains 4 --frames 20 --total 64 --json", getpid());
	said_is("\"domains\":4,\"frames\":20,\"total\":64,\"export\":false", "C9 which is what it has");
	if (sscanf(said, "{\"vm_id\":%u,", &o.vm_id) != 1 || ioctl(rdt_dev(), RDT_OPEN, &o))
		tap_bail("the VM is not attached: %s", said);
	r = rdt_wrap(o.fd, o.vm_id);
	ctl_is(0, "C9 the quota is changed", "quota %u --total 72", r->id);
	ctl_is(0, "C9 and shown", "quota pid:%d", getpid());
	said_is("4 domains, 20 frames in each, 72 in all, export off", "C9 as it is");
	ctl_is(0, "C1 there is none yet", "domains %u", r->id);
	said_is("0 domains", "C1 and it says so");
}

static void test_list(const struct dom *d)
{
	char hex[65], id[32];

	measurement(d, hex);
	sprintf(id, "\"id\":\"%#lx\"", d->id);
	ctl_is(0, "C7 the list", "domains %u --json", r->id);
	said_is(id, "C7 has the domain");
	said_is(hex, "C7 with its measurement");
	said_is("\"state\":\"sealed\"", "C7 and its state");
	ctl_is(0, "C7 for people", "domains %u", r->id);
	said_is(hex, "C7 the same");
}

static void test_install(const struct dom *d, const struct dom *other)
{
	char hex[65];

	measurement(d, hex);
	put_manifest(DIR "/m", hex);
	put_file(DIR "/key", "0123456789abcdef", 16, 0600);
	put_file(DIR "/pin", "PIN 4711", 8, 0600);
	put_file(DIR "/open", "PIN 4711", 8, 0644);

	ctl_is(1, "D1 a value that everybody can read is refused",
	       "secret install %u --manifest " DIR "/m key=" DIR "/key pin=" DIR "/open", r->id);
	said_is("others than its owner", "D1 for that");
	is(has(d, DOM_DATA + 64), 0, "D1 nothing was installed by that");
	ctl_is(0, "D1 values go where the manifest says",
	       "secret install %u --manifest " DIR "/m key=" DIR "/key pin=- <" DIR "/pin", r->id);
	ok(has(d, DOM_DATA + 64) == word("01234567") && has(d, DOM_DATA + 88) == word("89abcdef") &&
	   has(d, DOM_DATA + PAGE_SIZE) == word("PIN 4711"), "D1 each piece in its place");
	ok(!has(d, DOM_DATA + 72) && !has(d, DOM_DATA + 80) && !has(d, DOM_DATA + 96), "D1 and nowhere else");
	ok(!has(other, DOM_DATA + 64) && !has(other, DOM_DATA + PAGE_SIZE), "D1 nor in another domain");
	put_manifest(DIR "/m0", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
	ctl_is(1, "D1 a domain that is not there gets none",
	       "secret install %u --manifest " DIR "/m0 key=" DIR "/key pin=" DIR "/pin", r->id);
	ctl_is(0, "D1 a value at an address", "install %u --domain %#lx --at %#lx --value fd:7 7<" DIR "/pin", r->id,
	       d->id, DOM_GVA + DOM_DATA + 200);
	is(has(d, DOM_DATA + 200), word("PIN 4711"), "D1 is there");
	ctl_is(1, "D1 none where the gate is", "install %u --domain %#lx --at %#lx --value " DIR "/pin", r->id, d->id,
	       DOM_GVA);
	ctl_is(1, "D1 none over the end of its pages", "install %u --domain %#lx --at %#lx --value " DIR "/pin", r->id,
	       d->id, DOM_GVA + DOM_PAGES * PAGE_SIZE - 4);
}

/* A value that waits for the domain that it is for. */
static struct dom test_serve(void)
{
	struct dom like = dom_make(vm, 4, 0, 0x77), d;
	char hex[65], vm_id[16];
	int status;
	pid_t pid;

	/* What it will be measured as, a first one tells. */
	measurement(&like, hex);
	put_manifest(DIR "/serve", hex);
	ctl_is(0, "C8 the operator destroys", "destroy %u %#lx", r->id, like.id);
	sprintf(vm_id, "%u", r->id);
	pid = vfork();
	if (!pid) {
		execlp("redoubtctl", "redoubtctl", "secret", "serve", "--vm", vm_id, "--manifest", DIR "/serve", "key=" DIR "/key",
		       "pin=" DIR "/pin", "--count", "1", "--timeout", "120", NULL);
		_exit(127);
	}
	d = dom_make(vm, 4, 0, 0x77);
	waitpid(pid, &status, 0);
	is(status, 0, "D1 a value that was ready before the domain");
	ok(has(&d, DOM_DATA + 88) == word("89abcdef"), "D1 is in it when it is sealed");
	return d;
}

static void test_move(const struct dom *d)
{
	struct dom again;
	struct stat st;

	put_file(DIR "/move", "a key of the operator's, 32 byte", 32, 0600);
	put_file(DIR "/wrong", "a key of nobody's, with 32 bytes", 32, 0600);
	ctl_is(1, "C5 without leave nothing is exported", "domain export %u %#lx --key " DIR "/move --output " DIR "/blob",
	       r->id, d->id);
	said_is("quota does not allow it", "C5 and why not is said");
	ok(stat(DIR "/blob", &st), "C5 no file is made");
	ctl_is(0, "C5 with leave", "quota %u --export on", r->id);
	ctl_is(0, "C5 it is", "domain export %u %#lx --key " DIR "/move --output " DIR "/blob", r->id, d->id);
	ctl_is(0, "C8 the domain goes", "destroy %u %#lx", r->id, d->id);
	again = dom_make(vm, 0, RDT_DOM_EXPORTABLE, 0x1234);
	ctl_is(1, "C5 another key", "domain import %u --key " DIR "/wrong <" DIR "/blob", r->id);
	said_is("another key, or the blob was changed", "C5 is seen");
	ctl_is(0, "C5 back into one that was made like it", "domain import %u --key " DIR "/move <" DIR "/blob", r->id);
	ok(has(&again, DOM_DATA + 88) == word("89abcdef") && has(&again, DOM_DATA + PAGE_SIZE) == word("PIN 4711"),
	   "C5 it has what the other one had");
	ctl_is(1, "C5 and not twice", "domain import %u --key " DIR "/move --input " DIR "/blob", r->id);
	said_is("a thread is or has been inside", "C5 as somebody was inside");
}

static void test_destroy(const struct dom *d)
{
	struct vcpu *who = &vm->vcpu[1];

	dom_stay(d, who);
	ctl_is(0, "C8 the list", "domains %u", r->id);
	said_is("slots 1 of 1 busy", "C8 has the thread");
	ctl_is(1, "C8 a domain with a thread inside cannot go at once", "destroy %u %#lx", r->id, d->id);
	said_is("a thread is inside", "C8 and why is said");
	ctl_is(0, "C8 the list", "domains %u", r->id);
	said_is("dying", "C8 says that it is going");
	ctl_is(0, "C8 and with some patience it is gone", "destroy %u %#lx --wait 60 --json", r->id, d->id);
	is((int64_t)vcpu_join(who), -ENOENT, "C8 who was inside is put out");
	vcpu_must_end(who, "put out of its domain");
	ctl_is(1, "C8 it goes once", "destroy %u %#lx", r->id, d->id);
	said_is("there is no domain", "C8 as it is gone");
}

static void test_watch(void)
{
	static const char *const codes[] = { "sealed", "gone", "installed", "exported", "imported" };
	char code[32];

	ctl_is(1, "C10 what was watched", "watch %u --since 0 --type domain --json --count 1000 --timeout 1", r->id);
	for (unsigned int i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		sprintf(code, "\"code_name\":\"%s\"", codes[i]);
		said_is(code, "C10 has the event %s", codes[i]);
	}
	said_is("\"domain\":2", "C10 and of which domain");
}

int main(void)
{
	struct dom a, b, c;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mkdir(DIR, 0700);
	attach();
	a = dom_make(vm, 0, RDT_DOM_EXPORTABLE, 0x1234);
	b = dom_make(vm, 1, 0, 0x1234);
	test_list(&a);
	test_install(&a, &b);
	c = test_serve();
	test_move(&a);
	test_destroy(&b);
	test_watch();
	(void)c;
	if (system("rm -rf " DIR))
		tap_diag(DIR " is left");
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
