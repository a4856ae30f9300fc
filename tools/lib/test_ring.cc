// SPDX-License-Identifier: GPL-2.0
//
// A11: a slow reader loses no count. The reader against a writer that overwrites
// the ring as fast as it can.

#include <atomic>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "fake.h"
#include "ring.h"

namespace redoubt::client {

namespace {

// Mapped as the tool maps it: read-only and on its own, so that a reader that
// writes dies.
EventRing reader_of(const FakeRing &ring)
{
	void *at = mmap(nullptr, ring.size(), PROT_READ, MAP_SHARED, ring.fd(), 0);
	const size_t size = ring.size();

	EXPECT_NE(at, MAP_FAILED);
	return EventRing(std::shared_ptr<const void>(at, [size](void *map) { munmap(map, size); }), size);
}

// An event all of whose words follow from @number, with a sum over them in the
// last reserved fields: one word of another event breaks it.
rdt_event numbered(uint64_t number)
{
	const auto mix = [number](uint64_t salt) { return (number + salt) * 0x9e3779b97f4a7c15u; };
	rdt_event event{};

	event.time_ns = number;
	event.vm_id = static_cast<__u32>(number >> 7);
	event.type = static_cast<__u16>(1 + number % 16);
	event.gpa = mix(1);
	event.gva = mix(2);
	event.rip = mix(3);
	event.cr3 = mix(4);
	event.range_gpa = mix(5);
	event.range_pages = mix(6);
	event.old_val = mix(7);
	event.new_val = mix(8);
	event.flags = static_cast<__u32>(mix(9));
	for (unsigned i = 0; i < 4; i++)
		event.reserved[i] = static_cast<__u32>(mix(10 + i));
	return event;
}

uint64_t checksum(rdt_event event)
{
	__u64 words[sizeof(event) / sizeof(__u64)];
	uint64_t sum = 1;

	event.seq = 0;	// the writer's own number, checked apart
	event.reserved[4] = event.reserved[5] = 0;
	memcpy(words, &event, sizeof(event));
	for (uint64_t word : words)
		sum = (sum ^ word) * 0x100000001b3u;
	return sum;
}

rdt_event sealed(rdt_event event)
{
	const uint64_t sum = checksum(event);

	event.reserved[4] = static_cast<__u32>(sum);
	event.reserved[5] = static_cast<__u32>(sum >> 32);
	return event;
}

bool whole(const rdt_event &event)
{
	return checksum(event) == (event.reserved[4] | uint64_t{event.reserved[5]} << 32);
}

TEST(A11_Ring, EmptyThenInOrder)
{
	FakeRing ring(8);
	EventRing reader = reader_of(ring);
	rdt_event event;

	EXPECT_FALSE(reader.next(event));
	for (uint64_t i = 1; i <= 8; i++)
		EXPECT_EQ(ring.push(sealed(numbered(i))), i);
	for (uint64_t i = 1; i <= 8; i++) {
		ASSERT_TRUE(reader.next(event));
		EXPECT_EQ(event.seq, i);
		EXPECT_EQ(event.time_ns, i);
		EXPECT_TRUE(whole(event));
	}
	EXPECT_FALSE(reader.next(event));
	EXPECT_EQ(reader.lost(), 0u);
}

TEST(A11_Ring, OverwrittenEventsAreCounted)
{
	FakeRing ring(8);
	EventRing reader = reader_of(ring);
	rdt_event event;

	for (uint64_t i = 1; i <= 20; i++)
		ring.push(numbered(i));
	ASSERT_TRUE(reader.next(event));
	EXPECT_EQ(event.seq, 13u);	// the oldest of eight
	EXPECT_EQ(reader.gap(), 12u);
	ASSERT_TRUE(reader.next(event));
	EXPECT_EQ(event.seq, 14u);
	EXPECT_EQ(reader.gap(), 0u);
	EXPECT_EQ(reader.lost(), 12u);
}

TEST(A11_Ring, LostWithAFullRingBehind)
{
	// One event more than there is room for: exactly one is lost.
	FakeRing ring(8);
	EventRing reader = reader_of(ring);
	rdt_event event;

	for (uint64_t i = 1; i <= 9; i++)
		ring.push(numbered(i));
	ASSERT_TRUE(reader.next(event));
	EXPECT_EQ(event.seq, 2u);
	EXPECT_EQ(reader.lost(), 1u);
}

TEST(A11_Ring, HalfWrittenRecordIsNotRead)
{
	FakeRing ring(8);
	EventRing reader = reader_of(ring);
	rdt_event event;

	// The writer stopped in the middle of a new record...
	for (uint64_t i = 1; i <= 3; i++)
		ring.push(numbered(i));
	ring.record(4)->gpa = 0x1234;
	for (int i = 0; i < 3; i++)
		ASSERT_TRUE(reader.next(event));
	EXPECT_FALSE(reader.next(event));

	// ...and of one that overwrites: 1 is being replaced by 9.
	FakeRing full(8);
	EventRing late = reader_of(full);
	for (uint64_t i = 1; i <= 8; i++)
		full.push(numbered(i));
	full.record(9)->seq = 0;
	ASSERT_TRUE(late.next(event));
	EXPECT_EQ(event.seq, 2u);
	EXPECT_EQ(late.lost(), 1u);
}

TEST(A11_Ring, Seek)
{
	FakeRing ring(8);
	EventRing reader = reader_of(ring);
	rdt_event event;

	for (uint64_t i = 1; i <= 12; i++)
		ring.push(numbered(i));
	reader.seek(10);
	ASSERT_TRUE(reader.next(event));
	EXPECT_EQ(event.seq, 11u);
	reader.seek(reader.head());
	EXPECT_FALSE(reader.next(event));
	reader.seek(2);
	ASSERT_TRUE(reader.next(event));
	EXPECT_EQ(event.seq, 5u);
	EXPECT_EQ(reader.lost(), 2u);	// 3 and 4
	// Ahead of the writer: nothing until it gets there, and nothing is lost.
	reader.seek(14);
	for (uint64_t i = 13; i <= 14; i++) {
		ring.push(numbered(i));
		EXPECT_FALSE(reader.next(event));
	}
	ring.push(numbered(15));
	ASSERT_TRUE(reader.next(event));
	EXPECT_EQ(event.seq, 15u);
	EXPECT_EQ(reader.lost(), 0u);
}

TEST(A11_Ring, CountersByType)
{
	FakeRing ring(8);
	const EventRing reader = reader_of(ring);
	rdt_event event{};

	event.type = RDT_EV_GATE;
	for (int i = 0; i < 100; i++)
		ring.push(event);
	EXPECT_EQ(reader.count(RDT_EV_GATE), 100u);
	EXPECT_EQ(reader.count(RDT_EV_WRITE), 0u);
	EXPECT_EQ(reader.count(RDT_EV_NR), 0u);
	EXPECT_EQ(reader.head(), 100u);
}

TEST(A11_Ring, RefusesWhatIsNoRing)
{
	const auto broken = [](auto &&change) {
		FakeRing ring(8);

		change(*ring.header());
		EXPECT_THROW(reader_of(ring), Error);
	};
	broken([](rdt_ring &ring) { ring.magic++; });
	broken([](rdt_ring &ring) { ring.version++; });
	broken([](rdt_ring &ring) { ring.record_size = 64; });
	broken([](rdt_ring &ring) { ring.records = 0; });
	broken([](rdt_ring &ring) { ring.records = 7; });
	broken([](rdt_ring &ring) { ring.records = 16; });	// larger than the mapping
	broken([](rdt_ring &ring) { ring.data_offset = 8; });
	broken([](rdt_ring &ring) { ring.data_offset = 4100; });
	broken([](rdt_ring &ring) { ring.data_offset = UINT64_MAX - 7; });
}

// @records small: the reader is overrun all the time. @pause: the reader's
// slowness, in reads between two naps (0: as fast as it can).
void race(uint32_t records, uint64_t produced, uint64_t pause, bool writer_rests)
{
	FakeRing ring(records);
	EventRing reader = reader_of(ring);
	std::atomic<bool> done = false;
	uint64_t received = 0, torn = 0, wrong = 0, gaps = 0;

	std::thread writer([&] {
		for (uint64_t i = 1; i <= produced; i++) {
			ring.push(sealed(numbered(i)));
			if (writer_rests && i % 4096 == 0)
				std::this_thread::sleep_for(std::chrono::microseconds(200));
		}
		done = true;
	});
	uint64_t expected = 1;
	for (;;) {
		const bool last_round = done;
		rdt_event event;

		while (reader.next(event)) {
			received++;
			gaps += reader.gap() != 0;
			torn += !whole(event);
			// The number, the content and the gap tell the same story.
			wrong += event.seq != event.time_ns || event.seq != expected + reader.gap();
			expected = event.seq + 1;
			if (pause && received % pause == 0)
				std::this_thread::sleep_for(std::chrono::microseconds(100));
		}
		if (last_round)
			break;
	}
	writer.join();
	EXPECT_EQ(torn, 0u);
	EXPECT_EQ(wrong, 0u);
	EXPECT_EQ(received + reader.lost(), produced);
	// Otherwise the test has shown nothing.
	EXPECT_GT(received, 0u);
	EXPECT_GT(reader.lost(), 0u);
	EXPECT_GT(gaps, 1u);
	printf("# %u records: %lu produced = %lu received + %lu lost in %lu gaps\n", records, produced, received,
	       reader.lost(), gaps);
}

TEST(A11_Ring, RaceTinyRing)
{
	race(2, 20'000'000, 0, false);
}

TEST(A11_Ring, RaceSmallRing)
{
	race(64, 10'000'000, 0, false);
}

TEST(A11_Ring, RaceSlowReaderFullSize)
{
	race(RDT_RING_RECORDS, 5'000'000, 1000, false);
}

TEST(A11_Ring, RaceWriterInBursts)
{
	race(1024, 5'000'000, 0, true);
}

// Two readers of one ring do not disturb each other.
TEST(A11_Ring, TwoReaders)
{
	FakeRing ring(16);
	EventRing one = reader_of(ring), two = reader_of(ring);
	rdt_event event;

	for (uint64_t i = 1; i <= 4; i++)
		ring.push(numbered(i));
	for (uint64_t i = 1; i <= 4; i++)
		ASSERT_TRUE(one.next(event));
	ASSERT_TRUE(two.next(event));
	EXPECT_EQ(event.seq, 1u);
	EXPECT_FALSE(one.next(event));
}

} // namespace

} // namespace redoubt::client
