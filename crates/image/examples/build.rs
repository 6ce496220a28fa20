//! Makes a guest image:
//! `build -- redis --out DIR [--lock FILE] [--cache DIR] [--update-lock | --rehash]`.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use twinvm_image::{BuildOptions, ImageKind, LockMode, Terminal, build};

const USAGE: &str =
    "usage: build redis --out DIR [--lock FILE] [--cache DIR] [--update-lock | --rehash]";

fn run() -> Result<(), String> {
    let mut kind = None;
    let mut out = None;
    let mut options = BuildOptions::default();
    let mut words = env::args_os().skip(1);
    while let Some(word) = words.next() {
        let mut folder = || words.next().map(PathBuf::from).ok_or(USAGE);
        match word.to_str() {
            Some("--out") => out = Some(folder()?),
            Some("--lock") => options.lock = Some(folder()?),
            Some("--cache") => options.cache = Some(folder()?),
            Some("--update-lock") => options.lock_mode = LockMode::Update,
            Some("--rehash") => options.lock_mode = LockMode::Rehash,
            Some(name) if !name.starts_with('-') && kind.is_none() => {
                let parsed: ImageKind = name.parse().map_err(|error| format!("{error}"))?;
                kind = Some(parsed);
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    let kind = kind.ok_or(USAGE)?;
    let out = out.ok_or(USAGE)?;
    let image = build(kind, &out, &options, &mut Terminal::new()).map_err(|e| e.to_string())?;
    println!("kernel  {}", image.kernel.display());
    println!("initrd  {}", image.initrd.display());
    println!("cmdline {}", image.cmdline);
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
