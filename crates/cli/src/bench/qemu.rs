//! How the yardstick is started.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::guests::{Spec, Wire};

/// QEMU with its console on its standard input and output. With `rr` it writes down there what
/// it would need to repeat the run.
pub(crate) fn command(
    program: &Path,
    spec: &Spec,
    address: SocketAddr,
    guest_port: u16,
    rr: Option<&Path>,
) -> Command {
    let mut command = Command::new(program);
    command.args(["-M", "virt", "-m"]);
    command.arg(format!("{}M", spec.memory_mib));
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    command
        .args(["-bios", "default", "-kernel"])
        .arg(&spec.kernel);
    command.arg("-initrd").arg(&spec.initrd);
    command.args(["-append", &spec.cmdline]);
    command.args(["-global", "virtio-mmio.force-legacy=false"]);
    command.arg("-netdev").arg(match spec.wire {
        Wire::User => format!(
            "user,id=net,hostfwd=tcp:{}:{}-:{guest_port}",
            address.ip(),
            address.port()
        ),
        Wire::Tap(tap) => format!(
            "tap,id=net,ifname={},script=no,downscript=no,vhost=off",
            tap.name
        ),
    });
    command.args(["-device", "virtio-net-device,netdev=net"]);
    if let Some(disk) = &spec.disk {
        let mut drive = OsString::from("if=none,id=disk,format=raw,discard=unmap,file=");
        drive.push(disk);
        command.arg("-drive").arg(drive);
        if rr.is_some() {
            command.args(["-drive", "driver=blkreplay,if=none,id=replayed,image=disk"]);
        }
        let drive = if rr.is_some() { "replayed" } else { "disk" };
        command.arg("-device");
        command.arg(format!("virtio-blk-device,drive={drive}"));
    }
    command.args(["-device", "virtio-rng-device"]);
    // QEMU's manual, "Record/replay": the instruction counter, and each device's own filter.
    if let Some(file) = rr {
        command.args(["-object", "filter-replay,id=replay,netdev=net"]);
        let mut icount = OsString::from("shift=auto,rr=record,rrfile=");
        icount.push(file);
        command.arg("-icount").arg(icount);
    }
    command
}

#[cfg(test)]
mod tests;
