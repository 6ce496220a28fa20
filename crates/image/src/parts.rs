//! What images have in common: the kernel, its modules and busybox, out of unpacked packages.

use std::fs;
use std::path::{Path, PathBuf};

use crate::ImageError;
use crate::cpio::Archive;

/// The kernel and its release, from `boot/vmlinux-RELEASE`.
pub(crate) fn kernel(unpacked: &Path) -> Result<(Vec<u8>, String), ImageError> {
    let boot = unpacked.join("boot");
    let entries = fs::read_dir(&boot).map_err(ImageError::io(&boot))?;
    let mut releases: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("vmlinux-").map(str::to_owned)
        })
        .collect();
    let (Some(release), None) = (releases.pop(), releases.pop()) else {
        return Err(content("boot/vmlinux-*", "exactly one kernel is expected"));
    };
    let path = format!("boot/vmlinux-{release}");
    let data = read(unpacked, &path)?;
    // Linux, Documentation/arch/riscv/boot-image-header.rst: the second magic number.
    if data.get(56..60) != Some(b"RSC\x05") {
        return Err(content(&path, "has no header of a RISC-V Linux Image"));
    }
    Ok((data, release))
}

/// busybox and links to it under the names of `applets`, which it must all have.
pub(crate) fn busybox(
    unpacked: &Path,
    tree: &mut Archive,
    applets: &[&str],
) -> Result<(), ImageError> {
    let path = "usr/bin/busybox";
    let data = read(unpacked, path)?;
    for applet in applets {
        // The names stand in one table, each ended by a zero byte.
        let entry = [b"\0", applet.as_bytes(), b"\0"].concat();
        if !data.windows(entry.len()).any(|window| window == entry) {
            return Err(content(path, format!("has no applet `{applet}`")));
        }
        tree.link(&format!("bin/{applet}"), "busybox");
    }
    tree.file("bin/busybox", true, data);
    Ok(())
}

/// Kernel modules, named below `kernel/` of the module folder without the ending.
pub(crate) fn modules(
    unpacked: &Path,
    tree: &mut Archive,
    release: &str,
    modules: &[&str],
) -> Result<(), ImageError> {
    for module in modules {
        let name = module.rsplit('/').next().unwrap_or(module);
        let path = format!("usr/lib/modules/{release}/kernel/{module}.ko.xz");
        // Only unpacked: the kernel checks Debian's signature at the end of the file.
        let data = unxz(&path, &read(unpacked, &path)?)?;
        tree.file(&format!("lib/modules/{name}.ko"), false, data);
    }
    Ok(())
}

/// Reads a file of the unpacked packages; links may not lead out of them.
pub(crate) fn read(unpacked: &Path, name: &str) -> Result<Vec<u8>, ImageError> {
    let missing = |_| content(name, "is in none of the packages");
    let path: PathBuf = unpacked.join(name).canonicalize().map_err(missing)?;
    if !path.starts_with(unpacked) {
        return Err(content(name, "is a link that leads out of the packages"));
    }
    fs::read(&path).map_err(ImageError::io(&path))
}

fn unxz(name: &str, packed: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut data = Vec::new();
    lzma_rs::xz_decompress(&mut &packed[..], &mut data)
        .map_err(|error| content(name, format!("does not unpack: {error:?}")))?;
    Ok(data)
}

/// A package does not hold what it should.
pub(crate) fn content(file: &str, why: impl Into<String>) -> ImageError {
    ImageError::Content {
        file: file.to_owned(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests;
