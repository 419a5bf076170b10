import { expect, test } from "vitest";
import { cgroupNames, cgroupPath } from "../../src/platform/linux-cgroup.js";

const CONTAINER = "0123456789abcdef".repeat(4);
const POD = "8c2f1e6a-3a53-4d53-a4b0-1f0a9b7c6d5e";

test.each([
  ["0::/system.slice/cron.service\n", "/system.slice/cron.service"],
  [
    "12:cpu:/x\n1:name=systemd:/system.slice/cron.service\n0::/system.slice/cron.service\n",
    "/system.slice/cron.service",
  ],
  ["4:memory:/a\n1:name=systemd:/system.slice/cron.service\n0::/\n", "/system.slice/cron.service"],
  // Only these two: a controller's own hierarchy is nobody's word on units.
  ["4:memory:/system.slice/cron.service\n0::/\n", undefined],
  ["0::/\n", undefined],
  // Outside our cgroup namespace.
  ["0::/../../other\n", undefined],
  ["0::/..\n", undefined],
  ["", undefined],
  ["0::/a:0::/b\n", "/a:0::/b"],
])("%j is in %s", (text, path) => {
  expect(cgroupPath(text)).toBe(path);
});

test.each([
  ["/system.slice/cron.service", { systemdUnit: "cron.service" }],
  ["/system.slice/system-getty.slice/getty@tty1.service", { systemdUnit: "getty@tty1.service" }],
  ["/user.slice/user-1000.slice/session-2.scope", { systemdUnit: "session-2.scope" }],
  [
    "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-Terminal-7.scope",
    { systemdUnit: "user@1000.service", systemdUserUnit: "app-gnome-Terminal-7.scope" },
  ],
  // Below its own unit a service may make groups by any name: they are not units.
  ["/system.slice/build.service/cron.service", { systemdUnit: "build.service" }],
  ["/system.slice/build.service/user@1000.service/x.service", { systemdUnit: "build.service" }],
  ["/user.slice/user@0.service/init.scope/x.service", { systemdUnit: "user@0.service", systemdUserUnit: "init.scope" }],
  ["/_cpu.service", { systemdUnit: "cpu.service" }],
  ["/anything/cron.service", {}],
  ["/system.slice", {}],
  [`/system.slice/docker-${CONTAINER}.scope`, { systemdUnit: `docker-${CONTAINER}.scope`, containerId: CONTAINER }],
  [`/docker/${CONTAINER}`, { containerId: CONTAINER }],
  [`/docker/${CONTAINER}/init.scope`, { containerId: CONTAINER }],
  [
    `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${POD.replaceAll("-", "_")}.slice/cri-containerd-${CONTAINER}.scope`,
    { systemdUnit: `cri-containerd-${CONTAINER}.scope`, containerId: CONTAINER, podUid: POD },
  ],
  [`/kubepods/besteffort/pod${POD}/${CONTAINER}`, { containerId: CONTAINER, podUid: POD }],
  [`/docker/${CONTAINER.slice(1)}`, {}],
  [`/docker/${CONTAINER}0`, {}],
])("%s names %j", (path, names) => {
  expect(cgroupNames(path)).toEqual(names);
});
