// SPDX-License-Identifier: GPL-2.0
// The same in C++, with vector registers.
#include <redoubt/domain.h>

namespace {

template <typename T> T sum(const T *at, size_t count)
{
	T s{};

	for (size_t i = 0; i < count; i++)
		s += at[i];
	return s;
}

} // namespace

RDT_DOMAIN(1, 1, 4096, 0);

long rdt_main(uint64_t, const void *in, size_t in_len, void *out, size_t room)
{
	if (in_len % sizeof(double) || room < sizeof(double))
		return -RDT_EINVAL;
	*static_cast<double *>(out) = sum(static_cast<const double *>(in), in_len / sizeof(double));
	return sizeof(double);
}
