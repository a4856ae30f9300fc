// SPDX-License-Identifier: GPL-2.0

#include <iostream>

#include "commands.h"

int main(int argc, char **argv)
{
	redoubt::client::Sys sys;

	return redoubt::ctl::run(sys, argc, argv, std::cout, std::cerr);
}
