//! A private apt root for another architecture: the host's clients, mirror, proxy and keys, but
//! its own lists, status and cache. The host's package state is neither read nor changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr as _;

use crate::lock::Package;
use crate::sources::Mirror;
use crate::{ImageError, Progress, Sha256};

/// The Debian release that images are made of.
pub(crate) const SUITE: &str = "trixie";
/// Of the guests.
pub(crate) const ARCHITECTURE: &str = "riscv64";

/// Hooks of the host's configuration that would run after our own update: they refresh the
/// desktop's caches or clean the host's downloads.
const HOOKS: [&str; 6] = [
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
    "Binary::apt-get::DPkg::Post-Invoke",
];

/// Stands for a package of the mirror's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Available {
    pub(crate) package: Package,
    /// The names in `Depends:`, of each alternative the first.
    pub(crate) depends: Vec<String>,
}

/// The private root.
#[derive(Debug)]
pub(crate) struct Apt {
    config: PathBuf,
    /// Downloads land here and are moved on when they have been verified.
    incoming: PathBuf,
}

impl Apt {
    /// Writes the configuration below `root`, which is an absolute path.
    pub(crate) fn new(root: &Path, mirror: &Mirror) -> Result<Self, ImageError> {
        let config = root.join("apt.conf");
        let incoming = root.join("incoming");
        let sources = root.join("sources.list");
        for folder in ["state/lists/partial", "cache/archives/partial", "incoming"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(ImageError::io(&path))?;
        }
        let write = |path: &Path, text: &str| fs::write(path, text).map_err(ImageError::io(path));
        write(&root.join("state/status"), "")?;
        write(&sources, &source_line(mirror))?;
        write(&config, &configuration(root)?)?;
        Ok(Self { config, incoming })
    }

    /// Fetches the mirror's index.
    pub(crate) fn update(&self) -> Result<(), ImageError> {
        let mut command = self.command("apt-get");
        command.args(["-q", "update"]);
        run(command, "apt-get", "fetching the package index", |_| {})
    }

    /// What the index says about some packages.
    pub(crate) fn available(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, Available>, ImageError> {
        let mut command = self.command("apt-cache");
        command.arg("dumpavail");
        let mut index = Index::new(names);
        run(command, "apt-cache", "reading the package index", |line| {
            index.line(line);
        })?;
        Ok(index.finish())
    }

    /// The names of the essential packages, of those given, and of all that these need.
    pub(crate) fn with_what_they_need(&self, names: &[&str]) -> Result<Vec<String>, ImageError> {
        let mut command = self.command("apt-get");
        command
            .args(["-qq", "--simulate", "--no-install-recommends", "install"])
            .arg("?essential")
            .args(names);
        let mut all = Vec::new();
        run(command, "apt-get", "choosing the packages", |line| {
            all.extend(installed(line).map(str::to_owned));
        })?;
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Downloads packages; returns the folder in which they lie, yet to be verified.
    pub(crate) fn download(
        &self,
        packages: &[&Package],
        progress: &mut dyn Progress,
    ) -> Result<&Path, ImageError> {
        let total_bytes: u64 = packages.iter().map(|package| package.size_bytes).sum();
        let mut command = self.command("apt-get");
        command
            .current_dir(&self.incoming)
            .args(["-qq", "-o", "APT::Status-Fd=1", "download"])
            .args(packages.iter().map(|p| format!("{}={}", p.name, p.version)));
        run(command, "apt-get", "downloading packages", |line| {
            if let Some(percent) = percent(line) {
                let done = total_bytes as f64 * percent / 100.0;
                progress.advance(done as u64, total_bytes);
            }
        })?;
        Ok(&self.incoming)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.config);
        command
    }
}

/// Our one line of sources.list(5).
fn source_line(mirror: &Mirror) -> String {
    let Mirror {
        uri,
        keyring,
        trusted,
    } = mirror;
    let trusted = if *trusted { " trusted=yes" } else { "" };
    format!(
        "deb [arch={ARCHITECTURE} target=Packages signed-by={keyring}{trusted}] {uri} {SUITE} main\n"
    )
}

/// apt.conf(5); read after the host's own files, so that proxies and the like stay.
fn configuration(root: &Path) -> Result<String, ImageError> {
    let quotable = |text: &&str| !text.contains(['"', '\\', '\n']);
    let root = root
        .to_str()
        .filter(quotable)
        .ok_or_else(|| ImageError::Folder(root.to_owned()))?;
    let mut text = String::new();
    for hook in HOOKS {
        text.push_str(&format!("#clear {hook};\n"));
    }
    text.push_str(&format!(
        r#"#clear APT::Architectures;
#clear Acquire::Languages;
APT::Architecture "{ARCHITECTURE}";
APT::Architectures {{ "{ARCHITECTURE}"; }};
// The user that apt would change to may not be able to reach our folders.
APT::Sandbox::User "root";
// An index that can't be fetched is an error, not a warning.
APT::Update::Error-Mode "any";
Acquire::Languages {{ "none"; }};
Acquire::Retries "3";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{root}/state";
Dir::State::lists "{root}/state/lists";
Dir::State::status "{root}/state/status";
Dir::Cache "{root}/cache";
Dir::Cache::archives "{root}/cache/archives";
"#
    ));
    Ok(text)
}

/// Runs a program, gives its output line by line, and makes its last words the error.
pub(crate) fn run(
    mut command: Command,
    program: &'static str,
    doing: &str,
    mut line: impl FnMut(&str),
) -> Result<(), ImageError> {
    let failed = |said: String| ImageError::Failed {
        program,
        doing: doing.to_owned(),
        said,
    };
    // Errors go into a file: two pipes would have to be read at the same time.
    let mut errors = tempfile::tempfile().map_err(|error| failed(error.to_string()))?;
    let errors_out = errors
        .try_clone()
        .map_err(|error| failed(error.to_string()))?;
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors_out)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|count| count > 0)
        {
            line(String::from_utf8_lossy(&bytes).trim_end());
            bytes.clear();
        }
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(
        last_words(&mut errors).unwrap_or_else(|| status.to_string()),
    ))
}

/// apt's first line that begins with `E:`, else the last line.
fn last_words(errors: &mut File) -> Option<String> {
    let mut bytes = Vec::new();
    errors.rewind().ok()?;
    errors.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .find_map(|line| line.strip_prefix("E: "))
        .or_else(|| text.lines().rfind(|line| !line.trim().is_empty()))
        .map(|line| line.trim().to_owned())
}

/// From a line of a simulated installation: `Inst NAME (VERSION ARCHIVE [ARCHITECTURE])`.
fn installed(line: &str) -> Option<&str> {
    let name = line.strip_prefix("Inst ")?.split_whitespace().next()?;
    Some(name.split_once(':').map_or(name, |(name, _)| name))
}

/// From a line of APT::Status-Fd: `dlstatus:ITEM:PERCENT:TEXT`.
fn percent(line: &str) -> Option<f64> {
    let mut fields = line.split(':');
    (fields.next() == Some("dlstatus")).then_some(())?;
    let percent: f64 = fields.nth(1)?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

/// How many of the wanted packages this index offers.
pub(crate) fn in_index(index: &str, wanted: &[&str]) -> usize {
    let mut found = Index::new(wanted);
    index.lines().for_each(|line| {
        let _ = installed(line);
        let _ = percent(line);
        found.line(line);
    });
    found.finish().len()
}

/// Gathers the stanzas of a package index that have one of the wanted names.
struct Index<'a> {
    wanted: &'a [&'a str],
    stanza: BTreeMap<&'static str, String>,
    found: BTreeMap<String, Available>,
}

const FIELDS: [&str; 6] = [
    "Package",
    "Version",
    "Architecture",
    "SHA256",
    "Size",
    "Depends",
];

impl<'a> Index<'a> {
    fn new(wanted: &'a [&'a str]) -> Self {
        Self {
            wanted,
            stanza: BTreeMap::new(),
            found: BTreeMap::new(),
        }
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            self.end_stanza();
        } else if let Some((name, value)) = line.split_once(": ")
            && let Some(field) = FIELDS.iter().find(|field| **field == name)
        {
            self.stanza.insert(field, value.to_owned());
        }
    }

    fn end_stanza(&mut self) {
        let mut stanza = std::mem::take(&mut self.stanza);
        let mut take = |field| stanza.remove(field);
        let name = take("Package").filter(|name| self.wanted.contains(&name.as_str()));
        let Some(name) = name else { return };
        let depends = take("Depends").unwrap_or_default();
        let package = (|| {
            Some(Package {
                name: name.clone(),
                version: take("Version")?,
                architecture: take("Architecture")?,
                sha256: Sha256::from_str(&take("SHA256")?).ok()?,
                size_bytes: take("Size")?.parse().ok()?,
            })
        })();
        if let Some(package) = package {
            let depends = depends
                .split(',')
                .filter_map(|one| one.split_whitespace().next())
                .map(str::to_owned)
                .collect();
            // apt lists the version that it would install first.
            self.found
                .entry(name)
                .or_insert(Available { package, depends });
        }
    }

    fn finish(mut self) -> BTreeMap<String, Available> {
        self.end_stanza();
        self.found
    }
}

#[cfg(test)]
mod tests;
