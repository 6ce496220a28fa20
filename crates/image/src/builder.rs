//! From a lock to finished files: download, verify, unpack, assemble, install.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{self, Apt};
use crate::cpio::Archive;
use crate::disk::{self, DISK, DiskRecipe, quoted};
use crate::lock::{Lock, Output, Package};
use crate::{BuildOptions, BuiltImage, ImageError, LockMode, Progress, Sha256, sources, stamp};

const KERNEL: &str = "kernel";
const INITRD: &str = "initrd.cpio";
const FRAGMENT: &str = "image.toml";
const VM: &str = "VM.toml";

/// Work folders of builds that were cut short are known by this beginning.
const WORK_PREFIX: &str = "work-";

const TOOLS: [(&str, &str); 3] = [
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("dpkg-deb", "dpkg"),
];

/// What is different from image to image.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) cmdline: &'static str,
    /// A package without contents that depends on the newest kernel's package.
    pub(crate) kernel: &'static str,
    /// All packages; with a disk, only those that are wanted for themselves.
    pub(crate) packages: &'static [&'static str],
    /// The lock file that came with this program.
    pub(crate) lock: &'static str,
    /// Of everything here that shapes the outcome.
    pub(crate) digest: fn() -> Sha256,
    /// Picks the files out of the unpacked packages.
    pub(crate) assemble: fn(&Path) -> Result<Content, ImageError>,
    /// For an image whose packages are installed on a disk.
    pub(crate) disk: Option<DiskRecipe>,
}

impl Recipe {
    /// Whether the kernel and the initramfs are made of this package.
    fn unpacks(&self, package: &Package) -> bool {
        self.disk.is_none()
            || package.name == "busybox-static"
            || package.name.starts_with("linux-image-")
    }
}

/// What a recipe makes.
pub(crate) struct Content {
    pub(crate) kernel: Vec<u8>,
    pub(crate) initrd: Archive,
}

/// A lock and what errors say of it.
struct NamedLock {
    lock: Lock,
    name: String,
    /// The command that makes a new one.
    update: String,
}

/// See [`crate::build`].
pub(crate) fn build(
    recipe: &Recipe,
    out: &Path,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<BuiltImage, ImageError> {
    // Looked at first: one that is no good leaves nothing behind.
    wanted_lock(recipe, out, options)?;
    let out = &make_folder(out)?;
    let mut image = BuiltImage {
        kernel: out.join(KERNEL),
        initrd: out.join(INITRD),
        disk: recipe.disk.as_ref().map(|_| out.join(DISK)),
        vm: recipe.disk.as_ref().map(|_| out.join(VM)),
        cmdline: recipe.cmdline.to_owned(),
        up_to_date: true,
    };
    let digest = (recipe.digest)();
    let ssh_key = ssh_key(recipe, options)?;
    let ssh_key = ssh_key.as_deref();
    // Another build may be under way with the same cache: one at a time.
    let cache = make_folder(&options.cache.clone().unwrap_or_else(|| out.join(".cache")))?;
    let _guard = guard(&cache, progress)?;

    let locked = wanted_lock(recipe, out, options)?;
    if let (LockMode::Verify, Some(NamedLock { lock, name, update })) = (options.lock_mode, &locked)
    {
        if lock.recipe != digest {
            return Err(ImageError::Recipe {
                lock: name.clone(),
                update: update.clone(),
            });
        }
        progress.stage(&format!("verifying {}", out.display()));
        // What a guest has written to its disk is its own.
        let has_disk = image.disk.as_ref().is_none_or(|disk| disk.exists());
        if has_disk && stamp::is_current(out, lock, ssh_key) {
            progress.note(&format!("up to date: {}", out.display()));
            return Ok(image);
        }
    }

    image.up_to_date = false;
    let mut tools = TOOLS.to_vec();
    if recipe.disk.is_some() {
        tools.extend(disk::TOOLS);
        disk::look_at_host(out)?;
    }
    look_for_tools(&tools, env::var_os("PATH").as_deref())?;
    let debs = make_folder(&cache.join("debs"))?;
    let packages = match &locked {
        Some(named) => fetch_locked(named, &cache, &debs, progress)?,
        None => fetch_newest(recipe, &cache, &debs, progress)?,
    };

    let work = work_folder(out)?;
    let unpacked = make_folder(&work.path().join("unpacked"))?;
    let unpack: Vec<&Package> = packages.iter().filter(|p| recipe.unpacks(p)).collect();
    progress.stage(&format!("unpacking {} packages", unpack.len()));
    let total_bytes = unpack.iter().map(|package| package.size_bytes).sum();
    let mut done_bytes = 0;
    for package in unpack {
        let mut command = Command::new("dpkg-deb");
        command
            .arg("-x")
            .arg(debs.join(package.file_name()))
            .arg(&unpacked);
        let doing = format!("unpacking {}", package.name);
        apt::run(command, "dpkg-deb", &doing, |_| {})?;
        done_bytes += package.size_bytes;
        progress.advance(done_bytes, total_bytes);
    }
    progress.stage("assembling the image");
    let content = (recipe.assemble)(&unpacked)?;
    let made = Lock {
        recipe: digest,
        packages,
        outputs: write_outputs(work.path(), &content)?,
    };
    if let (LockMode::Verify, Some(named)) = (options.lock_mode, &locked) {
        compare_outputs(&made, named)?;
    }
    if let Some(recipe_of_disk) = &recipe.disk {
        let ingredients = disk::Ingredients {
            recipe: recipe_of_disk,
            wanted: recipe.packages,
            packages: &made.packages,
            debs: &debs,
            unpacked: &unpacked,
            ssh_key,
        };
        disk::make(&ingredients, work.path(), &cache, progress)?;
    }
    install(recipe, out, work.path(), &made, ssh_key)?;
    if options.lock_mode != LockMode::Verify {
        let path = lock_path(recipe, out, options);
        write_atomically(&path, &made.to_string())?;
        progress.note(&format!("new lock: {}", path.display()));
    }
    progress.note(&format!("built {}", out.display()));
    Ok(image)
}

/// Makes a folder and returns its absolute path.
fn make_folder(path: &Path) -> Result<PathBuf, ImageError> {
    if path.is_file() {
        let why = "a file, and an image goes into a folder: give another name";
        return Err(ImageError::io(path)(io::Error::new(
            io::ErrorKind::NotADirectory,
            why,
        )));
    }
    fs::create_dir_all(path)
        .and_then(|()| path.canonicalize())
        .map_err(ImageError::io(path))
}

/// Waits for the cache to be free and holds it until the value is dropped.
fn guard(cache: &Path, progress: &mut dyn Progress) -> Result<File, ImageError> {
    let path = cache.join("lock");
    let file = File::create(&path).map_err(ImageError::io(&path))?;
    if file.try_lock().is_err() {
        progress.stage("waiting for another build with the same cache");
        file.lock().map_err(ImageError::io(&path))?;
    }
    Ok(file)
}

/// Where an update writes its lock; a later build reads it there.
fn lock_path(recipe: &Recipe, out: &Path, options: &BuildOptions) -> PathBuf {
    options
        .lock
        .clone()
        .unwrap_or_else(|| out.join(format!("{}.lock", recipe.name)))
}

/// The lock that a build keeps to; an update keeps to none.
fn wanted_lock(
    recipe: &Recipe,
    out: &Path,
    options: &BuildOptions,
) -> Result<Option<NamedLock>, ImageError> {
    match options.lock_mode {
        LockMode::Update => Ok(None),
        LockMode::Verify | LockMode::Rehash => read_lock(recipe, out, options).map(Some),
    }
}

fn read_lock(recipe: &Recipe, out: &Path, options: &BuildOptions) -> Result<NamedLock, ImageError> {
    let path = lock_path(recipe, out, options);
    let (name, text) = if options.lock.is_some() || path.exists() {
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::NoLock {
                path: path.clone(),
                update: update_command(recipe, out, options),
            },
            _ => ImageError::io(&path)(error),
        })?;
        (path.display().to_string(), text)
    } else {
        let name = format!("the built-in {}.lock", recipe.name);
        (name, recipe.lock.to_owned())
    };
    match Lock::parse(&text) {
        Ok(lock) => Ok(NamedLock {
            lock,
            name,
            update: update_command(recipe, out, options),
        }),
        Err(bad) => Err(ImageError::Lock {
            path: name,
            line: bad.line,
            why: bad.why,
            update: update_command(recipe, out, options),
        }),
    }
}

/// The command that makes a new lock in the place where this build looked for one.
fn update_command(recipe: &Recipe, out: &Path, options: &BuildOptions) -> String {
    let mut command = format!("twinvm image build {} --out {}", recipe.name, quoted(out));
    if let Some(lock) = &options.lock {
        command.push_str(&format!(" --lock {}", quoted(lock)));
    }
    command + " --update-lock"
}

fn look_for_tools(
    tools: &[(&'static str, &'static str)],
    path: Option<&std::ffi::OsStr>,
) -> Result<(), ImageError> {
    let folders: Vec<PathBuf> = path.map(env::split_paths).into_iter().flatten().collect();
    for &(program, package) in tools {
        if !folders.iter().any(|folder| folder.join(program).is_file()) {
            return Err(ImageError::Tool { program, package });
        }
    }
    Ok(())
}

/// Brings the locked packages into `debs`; asks the mirror only for what is not there yet.
fn fetch_locked(
    locked: &NamedLock,
    cache: &Path,
    debs: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<Package>, ImageError> {
    progress.stage("verifying the downloads");
    let NamedLock { lock, name, .. } = locked;
    let missing = missing(&lock.packages, debs);
    if missing.is_empty() {
        return Ok(lock.packages.clone());
    }
    let mirror = sources::host_mirror(Path::new("/etc/apt"))?;
    let apt = Apt::new(cache, &mirror)?;
    progress.stage(&format!("fetching the package index from {}", mirror.uri));
    apt.update()?;
    let names: Vec<&str> = missing
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut available = apt.available(&names)?;
    for package in &missing {
        let found = available.remove(&package.name).map(|found| found.package);
        still_there(package, found, locked)?;
    }
    download(&apt, &missing, debs, name, progress)?;
    Ok(lock.packages.clone())
}

/// Compares a locked package with what the mirror has under its name.
fn still_there(
    package: &Package,
    found: Option<Package>,
    NamedLock { name, update, .. }: &NamedLock,
) -> Result<(), ImageError> {
    match found {
        Some(found) if found.version == package.version => compare(package, found.sha256, name),
        other => Err(ImageError::Gone {
            name: package.name.clone(),
            version: package.version.clone(),
            found: other.map(|found| found.version),
            lock: name.clone(),
            update: update.clone(),
        }),
    }
}

/// Brings the mirror's newest packages into `debs`.
fn fetch_newest(
    recipe: &Recipe,
    cache: &Path,
    debs: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<Package>, ImageError> {
    let mirror = sources::host_mirror(Path::new("/etc/apt"))?;
    let apt = Apt::new(cache, &mirror)?;
    progress.stage(&format!("fetching the package index from {}", mirror.uri));
    apt.update()?;
    let no_package = |name: &str| ImageError::NoPackage {
        name: name.to_owned(),
        mirror: mirror.uri.clone(),
        suite: apt::SUITE,
    };
    let kernel = apt
        .available(&[recipe.kernel])?
        .remove(recipe.kernel)
        .and_then(|found| found.depends.into_iter().next())
        .ok_or_else(|| no_package(recipe.kernel))?;
    let wanted: Vec<String> = if recipe.disk.is_some() {
        apt.with_what_they_need(recipe.packages)?
    } else {
        recipe
            .packages
            .iter()
            .map(|&name| name.to_owned())
            .collect()
    };
    let names: Vec<&str> = wanted.iter().chain([&kernel]).map(String::as_str).collect();
    let mut available = apt.available(&names)?;
    let mut packages = Vec::new();
    for name in names {
        let found = available.remove(name).ok_or_else(|| no_package(name))?;
        packages.push(found.package);
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let missing = missing(&packages, debs);
    download(&apt, &missing, debs, "the mirror's index", progress)?;
    Ok(packages)
}

/// The packages whose file is not there, or not whole.
fn missing<'a>(packages: &'a [Package], debs: &Path) -> Vec<&'a Package> {
    let whole = |package: &Package| {
        Sha256::of_file(&debs.join(package.file_name()))
            .is_ok_and(|(found, _)| found == package.sha256)
    };
    packages.iter().filter(|package| !whole(package)).collect()
}

/// Downloads, verifies, and only then moves into the cache.
fn download(
    apt: &Apt,
    packages: &[&Package],
    debs: &Path,
    lock: &str,
    progress: &mut dyn Progress,
) -> Result<(), ImageError> {
    if packages.is_empty() {
        return Ok(());
    }
    progress.stage(&format!("downloading {} packages", packages.len()));
    let incoming = apt.download(packages, progress)?;
    for package in packages {
        let from = incoming.join(package.file_name());
        let (found, _) = Sha256::of_file(&from).map_err(ImageError::io(&from))?;
        compare(package, found, lock)?;
        let to = debs.join(package.file_name());
        fs::rename(&from, &to).map_err(ImageError::io(&to))?;
    }
    Ok(())
}

fn compare(package: &Package, found: Sha256, lock: &str) -> Result<(), ImageError> {
    if found == package.sha256 {
        return Ok(());
    }
    Err(ImageError::Digest {
        what: format!("{} {}", package.name, package.version),
        found: Box::new(found),
        expected: Box::new(package.sha256),
        lock: lock.to_owned(),
        mend: "the mirror is damaged, or the lock is; --update-lock makes a new one",
    })
}

fn compare_outputs(made: &Lock, locked: &NamedLock) -> Result<(), ImageError> {
    let NamedLock { lock, name, update } = locked;
    for output in &made.outputs {
        let expected = lock
            .outputs
            .iter()
            .find(|other| other.name == output.name)
            .ok_or_else(|| ImageError::Lock {
                path: name.clone(),
                line: 0,
                why: format!("has no line `output {}`", output.name),
                update: update.clone(),
            })?;
        if expected != output {
            return Err(ImageError::Digest {
                what: output.name.clone(),
                found: Box::new(output.sha256),
                expected: Box::new(expected.sha256),
                lock: name.clone(),
                mend: "this build does not repeat the locked one; --update-lock makes a new lock",
            });
        }
    }
    Ok(())
}

/// A folder on the same file system as the output; those of builds cut short are swept first.
fn work_folder(out: &Path) -> Result<tempfile::TempDir, ImageError> {
    let folder = make_folder(&out.join(".cache"))?;
    for entry in fs::read_dir(&folder)
        .map_err(ImageError::io(&folder))?
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
            // A program of that build may still be writing: the next build sweeps again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new()
        .prefix(WORK_PREFIX)
        .tempdir_in(&folder)
        .map_err(ImageError::io(&folder))
}

fn write_outputs(work: &Path, content: &Content) -> Result<Vec<Output>, ImageError> {
    let initrd = work.join(INITRD);
    let mut archive = Vec::new();
    content
        .initrd
        .write(&mut archive)
        .map_err(ImageError::io(&initrd))?;
    let mut outputs = Vec::new();
    for (name, data) in [(INITRD, &archive), (KERNEL, &content.kernel)] {
        let path = work.join(name);
        fs::write(&path, data).map_err(ImageError::io(&path))?;
        outputs.push(Output {
            name: name.to_owned(),
            sha256: Sha256::of(data),
            size_bytes: data.len() as u64,
        });
    }
    Ok(outputs)
}

/// Renames the outputs into place. The stamp goes first and comes back last: without it, the
/// next build starts anew.
fn install(
    recipe: &Recipe,
    out: &Path,
    work: &Path,
    made: &Lock,
    ssh_key: Option<&str>,
) -> Result<(), ImageError> {
    let path = out.join(stamp::FILE);
    if path.exists() {
        fs::remove_file(&path).map_err(ImageError::io(&path))?;
    }
    let disk = recipe.disk.as_ref().map(|_| DISK);
    for name in [KERNEL, INITRD].into_iter().chain(disk) {
        let to = out.join(name);
        fs::rename(work.join(name), &to).map_err(ImageError::io(&to))?;
    }
    let vm = out.join(VM);
    if disk.is_none() {
        write_atomically(&out.join(FRAGMENT), &fragment(recipe))?;
    } else if !vm.exists() {
        write_atomically(&vm, &vm_file(recipe))?;
    }
    write_atomically(&path, &stamp::text(made, ssh_key))
}

/// The lines of a VM.toml that start this image.
fn fragment(recipe: &Recipe) -> String {
    let Recipe { name, cmdline, .. } = recipe;
    format!(
        "# Made by `twinvm image build {name}`. These lines go into a VM.toml; paths there are\n\
         # relative to that file.\n\
         kernel = \"{KERNEL}\"\ninitrd = \"{INITRD}\"\ncmdline = \"{cmdline}\"\n"
    )
}

/// The VM's file of an image with a disk; once there it belongs to its reader.
fn vm_file(recipe: &Recipe) -> String {
    let Recipe { name, cmdline, .. } = recipe;
    format!(
        r#"# Made by `twinvm image build {name}`. Starts with `twinvm run VM.toml`; log in as root, without a
# password. Paths are relative to this file.
name = "{name}"
memory = "512M"
kernel = "{KERNEL}"
initrd = "{INITRD}"
# ADDR= and GW= are the guest's address and gateway; ADDR=dhcp asks the network for them.
cmdline = "{cmdline}"

[[disk]]
path = "{DISK}"

# A network card: the socket of `twinvm lan`, or a TAP interface of this host.
# [[net]]
# mac = "52:54:00:12:34:56"
# backend = "lan:lan.sock"
# backend = "tap:tap0"
"#
    )
}

/// Reads the keys that may come in over SSH, as lines of authorized_keys (sshd(8)).
fn ssh_key(recipe: &Recipe, options: &BuildOptions) -> Result<Option<String>, ImageError> {
    let Some(path) = &options.ssh_key else {
        return Ok(None);
    };
    let bad = |why| ImageError::SshKey {
        path: path.clone(),
        why,
    };
    if recipe.disk.is_none() {
        return Err(bad("this image has no SSH server, so it takes no key"));
    }
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => bad("there is no such file: give a public key (FILE.pub)"),
        _ => ImageError::io(path)(error),
    })?;
    if text.contains("PRIVATE KEY") {
        return Err(bad("is a private key: give the public one (FILE.pub)"));
    }
    let is_key = |line: &str| {
        let kinds = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
        line.starts_with('#')
            || line
                .split(' ')
                .any(|w| kinds.iter().any(|k| w.starts_with(k)))
    };
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.is_empty() || !lines.iter().all(|line| is_key(line)) {
        return Err(bad("holds no public keys of SSH, one a line"));
    }
    Ok(Some(lines.join("\n") + "\n"))
}

fn write_atomically(path: &Path, text: &str) -> Result<(), ImageError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(ImageError::io(folder))?;
    file.write_all(text.as_bytes())
        .map_err(ImageError::io(path))?;
    file.persist(path)
        .map_err(|error| ImageError::io(path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests;
