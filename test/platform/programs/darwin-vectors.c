/*
 * Answers of macOS's kernel with known fields, laid out by a compiler from Apple's own headers: `cc darwin-vectors.c && ./a.out` on a Mac prints what
 * ../darwin-vectors.json holds. Nothing is asked of a kernel.
 */
#include <sys/types.h>
#include <sys/proc.h>
#include <sys/proc_info.h>
#if __has_include(<sys/proc_info_private.h>)
#include <sys/proc_info_private.h>
#endif
#include <sys/ptrace.h>
#include <sys/sysctl.h>
#include <sys/ucred.h>
#include <sys/un.h>
#if __has_include(<kern/cs_blobs.h>)
#include <kern/cs_blobs.h>
#endif
#if __has_include(<sys/codesign.h>)
#include <sys/codesign.h>
#endif

/* A port stands in its field in network order. */
#define PORT(port) ((((port) & 0xff) << 8) | ((port) >> 8))

const audit_token_t audit_token = {{501, 502, 20, 501, 20, 4242, 100005, 77}};
const struct xucred xucred = {.cr_version = XUCRED_VERSION, .cr_uid = 501, .cr_ngroups = 3, .cr_groups = {20, 12, 61}};
const struct proc_bsdinfo bsd_info = {
  .pbi_flags = 0x11, .pbi_status = SRUN, .pbi_xstatus = 0x12, .pbi_pid = 4242, .pbi_ppid = 400,
  .pbi_uid = 501, .pbi_gid = 20, .pbi_ruid = 502, .pbi_rgid = 21, .pbi_svuid = 503, .pbi_svgid = 22,
  .pbi_comm = "python3.12", .pbi_nfiles = 0x13, .pbi_pgid = 0x14, .pbi_pjobc = 0x15, .e_tdev = 0x16, .e_tpgid = 0x17, .pbi_nice = 0x18,
  .pbi_start_tvsec = 1795000000, .pbi_start_tvusec = 250000,
};
const struct proc_bsdinfo bsd_info_zombie = {.pbi_status = SZOMB, .pbi_comm = "python3.12-with", .pbi_name = "python3.12-with-a-long-name"};
#ifdef PROC_PIDUNIQIDENTIFIERINFO
const struct proc_uniqidentifierinfo unique_info = {
  .p_uuid = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8},
  .p_uniqueid = 0x1111111111111111, .p_puniqueid = 0x2222222222222222, .p_idversion = 77, .p_orig_ppidversion = 0x33333333,
};
#endif
const struct socket_fdinfo socket_v4 = {
  .pfi = {.fi_openflags = 0x41414141, .fi_status = 0x42424242, .fi_offset = 0x4343434343434343, .fi_type = 0x44444444, .fi_guardflags = 0x45454545},
  .psi = {.soi_so = 0x4646464646464646, .soi_pcb = 0x4747474747474747, .soi_type = 1, .soi_protocol = 6, .soi_family = 2, .soi_kind = SOCKINFO_TCP,
          .rfu_1 = 0x48484848,
          .soi_proto.pri_tcp.tcpsi_ini = {.insi_fport = PORT(443), .insi_lport = PORT(50000), .insi_gencnt = 0x4949494949494949,
                                          .insi_flags = 0x4a4a4a4a, .insi_flow = 0x4b4b4b4b, .insi_vflag = INI_IPV4, .insi_ip_ttl = 64,
                                          .rfu_1 = 0x4c4c4c4c, .insi_faddr.ina_46.i46a_addr4.s_addr = 0x0100007f,
                                          .insi_laddr.ina_46.i46a_addr4.s_addr = 0x0200007f, .insi_v4.in4_tos = 0x4d}},
};
const struct socket_fdinfo socket_v6 = {
  .psi = {.soi_kind = SOCKINFO_TCP,
          .soi_proto.pri_tcp.tcpsi_ini = {.insi_fport = PORT(8443), .insi_lport = PORT(50001), .insi_vflag = INI_IPV6,
                                          .insi_faddr.ina_6.__u6_addr.__u6_addr8 = {[15] = 1},
                                          .insi_laddr.ina_6.__u6_addr.__u6_addr8 = {0xfe, 0x80, [15] = 2}}},
};
const struct socket_fdinfo socket_unix = {.psi = {.soi_kind = SOCKINFO_UN}};
const struct proc_fdinfo descriptors[] = {{0, PROX_FDTYPE_VNODE}, {7, PROX_FDTYPE_SOCKET}, {8, PROX_FDTYPE_PIPE}, {9, PROX_FDTYPE_SOCKET}};

#define NUMBERS(each) \
  each(SOL_LOCAL) each(LOCAL_PEERCRED) each(LOCAL_PEERPID) each(LOCAL_PEERTOKEN) each(PROC_PIDTBSDINFO) each(PROC_PIDLISTFDS) \
  each(PROC_PIDFDSOCKETINFO) each(CTL_KERN) each(KERN_PROCARGS2) each(PT_DENY_ATTACH)
#define PRIVATE_NUMBERS(each) \
  each(PROC_PIDUNIQIDENTIFIERINFO) each(CS_OPS_STATUS) each(CS_OPS_IDENTITY) each(CS_OPS_TEAMID) each(CS_VALID) each(CS_DEBUGGED)
#define NUMBER(name) const unsigned number_##name = name;
NUMBERS(NUMBER)
#ifdef CS_OPS_STATUS
PRIVATE_NUMBERS(NUMBER)
#endif

#if __STDC_HOSTED__
#include <stdio.h>
static const char *between = "";
static void bytes(const char *name, const void *at, size_t size) {
  printf("%s\n  \"%s\": \"", between, name);
  for (size_t each = 0; each < size; each++) printf("%02x", ((const unsigned char *)at)[each]);
  printf("\"");
  between = ",";
}
#define BYTES(name) bytes(#name, &name, sizeof name);
#define PRINT(name) printf("%s\n  \"%s\": %u", between, #name, number_##name), between = ",";
int main(void) {
  printf("{");
  BYTES(audit_token) BYTES(xucred) BYTES(bsd_info) BYTES(bsd_info_zombie)
#ifdef PROC_PIDUNIQIDENTIFIERINFO
  BYTES(unique_info)
#endif
  BYTES(socket_v4) BYTES(socket_v6) BYTES(socket_unix) BYTES(descriptors)
  NUMBERS(PRINT)
#ifdef CS_OPS_STATUS
  PRIVATE_NUMBERS(PRINT)
#endif
  printf("\n}\n");
}
#endif
