// SPDX-License-Identifier: GPL-2.0
/* What the model needs of the NVM Express Base Specification 1.4; figure numbers are that one's. */
#pragma once

#include <redoubt/types.h>

namespace redoubt::dma::nvme {

/* Registers, figure 68 */
enum Reg : u32 {
	reg_cap = 0x00,
	reg_vs = 0x08,
	reg_intms = 0x0c,
	reg_intmc = 0x10,
	reg_cc = 0x14,
	reg_csts = 0x1c,
	reg_nssr = 0x20,
	reg_aqa = 0x24,
	reg_asq = 0x28,
	reg_acq = 0x30,
	reg_doorbells = 0x1000,
};

/* CAP, figure 69 */
constexpr u32 cap_mqes(u64 cap)
{
	return cap & 0xffff;
}
constexpr u32 cap_to(u64 cap) /* in units of 500 ms */
{
	return (cap >> 24) & 0xff;
}
constexpr u32 cap_dstrd(u64 cap)
{
	return (cap >> 32) & 15;
}
constexpr u32 cap_mpsmin(u64 cap)
{
	return (cap >> 48) & 15;
}
inline constexpr u64 cap_cqr = 1ull << 16;
inline constexpr u64 cap_css_nvm = 1ull << 37;

/* CC and CSTS, figures 78 and 79 */
inline constexpr u32 cc_en = 1;
inline constexpr u32 cc_css = 7 << 4, cc_mps = 15 << 7, cc_ams = 7 << 11, cc_shn = 3 << 14;
inline constexpr u32 cc_entry_sizes = 6 << 16 | 4 << 20; /* 64 and 16 bytes */
inline constexpr u32 cc_entry_mask = 15 << 16 | 15 << 20;
inline constexpr u32 csts_rdy = 1, csts_cfs = 2, csts_shst = 3 << 2, csts_shst_done = 2 << 2;

struct Sqe { /* figure 104 */
	u8 opcode;
	u8 flags; /* 1:0 fused, 7:6 PSDT */
	u16 cid;
	u32 nsid;
	u32 cdw2, cdw3;
	u64 mptr;
	u64 prp1, prp2;
	u32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
static_assert(sizeof(Sqe) == 64);
inline constexpr u8 sqe_sgl = 1 << 6; /* PSDT: where PRP1 and PRP2 are is an SGL descriptor; MPTR is a plain address */

struct Sgl { /* figures 112 to 118 */
	u64 addr;
	u32 len;
	u8 reserved[3];
	u8 id; /* 7:4 type, 3:0 subtype */
};
static_assert(sizeof(Sgl) == 16);

enum SglId : u8 { /* all of subtype 0: an address */
	sgl_data = 0x00,
	sgl_bit_bucket = 0x10,
	sgl_segment = 0x20,
	sgl_last_segment = 0x30,
};

struct Cqe { /* figure 121 */
	u32 dw0, dw1;
	u16 sqhd, sqid;
	u16 cid;
	u16 status; /* bit 0: phase; above it the status field */
};
static_assert(sizeof(Cqe) == 16);

enum AdminOp : u8 { /* figure 138 */
	adm_delete_sq = 0x00,
	adm_create_sq = 0x01,
	adm_get_log = 0x02,
	adm_delete_cq = 0x04,
	adm_create_cq = 0x05,
	adm_identify = 0x06,
	adm_abort = 0x08,
	adm_set_features = 0x09,
	adm_get_features = 0x0a,
	adm_async_event = 0x0c,
	adm_dbbuf = 0x7c,
};

enum NvmOp : u8 { /* figure 346 */
	nvm_flush = 0x00,
	nvm_write = 0x01,
	nvm_read = 0x02,
	nvm_write_uncorrectable = 0x04,
	nvm_compare = 0x05,
	nvm_write_zeroes = 0x08,
	nvm_dsm = 0x09,
	nvm_verify = 0x0c,
	nvm_copy = 0x19,
};

/* Status field without its phase bit: code type in bits 10:8, code in 7:0; bit 14: do not retry. Figures 126 to 128 */
enum Sc : u16 {
	sc_ok = 0x000,
	sc_invalid_opcode = 0x001,
	sc_invalid_field = 0x002,
	sc_transfer_error = 0x004,
	sc_internal = 0x006,
	sc_invalid_ns = 0x00b,
	sc_sgl_segment = 0x00d,
	sc_sgl_count = 0x00e,
	sc_sgl_length = 0x00f,
	sc_sgl_type = 0x011,
	sc_invalid_prp_offset = 0x013,
	sc_sgl_granularity = 0x01e,
	sc_cq_invalid = 0x100,
	sc_invalid_qid = 0x101,
	sc_invalid_qsize = 0x102,
	sc_too_many_aers = 0x105,
	sc_invalid_vector = 0x108,
	sc_invalid_log = 0x109,
	sc_invalid_delete = 0x10c,
	sc_not_saveable = 0x10d,
	sc_dnr = 0x4000,
};

enum Feature : u8 { /* figure 271 */
	feat_arbitration = 0x01,
	feat_power = 0x02,
	feat_temperature = 0x04,
	feat_error_recovery = 0x05,
	feat_write_cache = 0x06,
	feat_queues = 0x07,
	feat_coalescing = 0x08,
	feat_vector_config = 0x09,
	feat_atomicity = 0x0a,
	feat_async_events = 0x0b,
	feat_thermal = 0x10,
	feat_nops = 0x11,
};

enum Cns : u8 { /* figure 244 */
	cns_ns = 0x00,
	cns_ctrl = 0x01,
	cns_active_ns = 0x02,
	cns_ns_desc = 0x03,
};

/* Identify Controller, figure 247: offsets of what the model reads or changes */
enum IdCtrl : u32 {
	idc_vid = 0,
	idc_serial = 4,
	idc_model = 24,
	idc_firmware = 64,
	idc_cmic = 76,
	idc_mdts = 77,
	idc_oaes = 92,
	idc_ctratt = 96,
	idc_crdt = 128,
	idc_oacs = 256,
	idc_aerl = 259,
	idc_lpa = 261,
	idc_apsta = 265,
	idc_hmpre = 272,
	idc_hmmin = 276,
	idc_edstt = 316,
	idc_dsto = 318,
	idc_kas = 320,
	idc_sanicap = 328,
	idc_anacap = 343,
	idc_sqes = 512,
	idc_cqes = 513,
	idc_nn = 516,
	idc_oncs = 520,
	idc_fuses = 522,
	idc_vwc = 525,
	idc_sgls = 536,
	idc_subnqn = 768,
};

/* SGLS: in 1:0 whether there are SGLs, and then what else of them */
inline constexpr u32 sgls_none = 0, sgls_bytes = 1, sgls_dwords = 2, sgls_support = 3;
inline constexpr u32 sgls_bit_bucket = 1 << 16;
inline constexpr u32 sgls_byte_meta = 1 << 17; /* MPTR at any byte, with PSDT 01 */
inline constexpr u32 sgls_longer = 1 << 18;    /* than the data */

/* Identify Namespace, figure 245 */
enum IdNs : u32 {
	idn_nsze = 0,
	idn_ncap = 8,
	idn_flbas = 26,
	idn_dps = 29,
	idn_nguid = 104,
	idn_eui64 = 120,
	idn_lbaf = 128,
};

inline u32 le32(const u8 *p)
{
	return static_cast<u32>(p[0] | p[1] << 8 | p[2] << 16) | static_cast<u32>(p[3]) << 24;
}

/* The format that a namespace has: 16 bits of metadata, then the logarithm of the block's bytes. */
inline const u8 *lba_format(const u8 *id)
{
	return id + idn_lbaf + (id[idn_flbas] & 15) * usize{4};
}

} // namespace redoubt::dma::nvme
