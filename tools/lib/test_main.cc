// SPDX-License-Identifier: GPL-2.0
//
// GoogleTest, telling its results as TAP.

#include <cstdio>

#include <gtest/gtest.h>

namespace {

class Tap : public testing::EmptyTestEventListener {
	void OnTestPartResult(const testing::TestPartResult &part) override
	{
		if (part.failed())
			printf("# %s:%d: %s\n", part.file_name() ? part.file_name() : "?", part.line_number(), part.summary());
	}
	void OnTestEnd(const testing::TestInfo &test) override
	{
		printf("%sok %d - %s.%s\n", test.result()->Passed() ? "" : "not ", ++number_, test.test_suite_name(),
		       test.name());
		fflush(stdout);
	}
	void OnTestProgramEnd(const testing::UnitTest &) override { printf("1..%d\n", number_); }

	int number_ = 0;
};

} // namespace

int main(int argc, char **argv)
{
	testing::InitGoogleTest(&argc, argv);
	auto &listeners = testing::UnitTest::GetInstance()->listeners();
	delete listeners.Release(listeners.default_result_printer());
	listeners.Append(new Tap);
	return RUN_ALL_TESTS();
}
