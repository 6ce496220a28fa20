//! What must be equal on both hosts for a guest to run the same on them.

use crate::MACHINE_VERSION;
use std::sync::Arc;
use twinvm_devices::SlotConfig;

/// The files the guest boots from, kept for the machine's whole life because a
/// reset loads them again.
#[derive(Clone)]
pub struct Images {
    kernel: Arc<[u8]>,
    initrd: Option<Arc<[u8]>>,
    kernel_hash: [u8; 32],
    initrd_hash: Option<[u8; 32]>,
}

impl Images {
    /// Takes the files' contents and hashes them.
    pub fn new(kernel: Vec<u8>, initrd: Option<Vec<u8>>) -> Self {
        Self {
            kernel_hash: *blake3::hash(&kernel).as_bytes(),
            initrd_hash: initrd
                .as_deref()
                .map(|bytes| *blake3::hash(bytes).as_bytes()),
            kernel: kernel.into(),
            initrd: initrd.map(Into::into),
        }
    }

    /// The kernel file.
    pub fn kernel(&self) -> &[u8] {
        &self.kernel
    }

    /// The initial RAM disk, if there is one.
    pub fn initrd(&self) -> Option<&[u8]> {
        self.initrd.as_deref()
    }
}

/// What a guest's reset request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnReset {
    /// The machine starts again.
    Restart,
    /// The machine ends.
    Exit,
}

/// The configuration of a machine.
#[derive(Clone)]
pub struct MachineConfig {
    /// Size of RAM in bytes.
    pub ram_bytes: u64,
    /// Number of harts; this version runs one.
    pub harts: u32,
    /// What each of the eight virtio slots holds.
    pub slots: Vec<SlotConfig>,
    /// Command line of the kernel.
    pub cmdline: String,
    /// What the guest boots from.
    pub images: Images,
    /// What a guest's reset does.
    pub on_reset: OnReset,
}

impl MachineConfig {
    /// The fields that two hosts compare before one continues what the other
    /// started: name and value, in a fixed order. Unequal values mean refusal.
    pub fn fields(&self) -> Vec<(String, String)> {
        let hash = |hash: Option<&[u8; 32]>| match hash {
            Some(hash) => hash.iter().map(|b| format!("{b:02x}")).collect(),
            None => "none".to_owned(),
        };
        let mut fields = vec![
            ("machine_version".to_owned(), MACHINE_VERSION.to_string()),
            ("memory".to_owned(), self.ram_bytes.to_string()),
            ("harts".to_owned(), self.harts.to_string()),
            ("kernel".to_owned(), hash(Some(&self.images.kernel_hash))),
            ("initrd".to_owned(), hash(self.images.initrd_hash.as_ref())),
            ("cmdline".to_owned(), self.cmdline.clone()),
            (
                "on_reset".to_owned(),
                format!("{:?}", self.on_reset).to_lowercase(),
            ),
        ];
        for (n, slot) in self.slots.iter().enumerate() {
            let value = match slot {
                SlotConfig::Empty => "empty".to_owned(),
                SlotConfig::Rng => "entropy".to_owned(),
                SlotConfig::Net { mac } => {
                    let bytes: Vec<String> = mac.iter().map(|b| format!("{b:02x}")).collect();
                    format!("network card {}", bytes.join(":"))
                }
            };
            fields.push((format!("virtio slot {n}"), value));
        }
        fields
    }
}

/// What is drawn once, at power-on, and from then on is the machine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PowerOn {
    /// Seed of the guest kernel's random number generator (device tree).
    pub rng_seed: [u8; 32],
    /// Wall time at virtual time 0, nanoseconds since 1970-01-01 UTC.
    pub rtc_base_ns: u64,
}
