//! What devices give out: it waits here until the machine takes it, after the access.

/// Something that a device wants done outside the machine, in the order in which it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceOutput {
    /// A packet that the guest sent: a header and an Ethernet frame. Next hop: the machine logs its
    /// hash as an output record and hands it to the output gate.
    Frame {
        /// The virtio slot of the network device.
        device: u8,
        /// The header (`virtio::NetHeader`), then the frame from the destination address on,
        /// without its Ethernet checksum.
        bytes: Vec<u8>,
    },
}

/// Descriptors that devices may read before the machine hears of it: some 50 µs on the host.
const MUCH_WORK: u32 = 4096;

/// Outputs and console bytes that the machine has not yet taken, and how much work devices have had.
///
/// It isn't device state: the machine takes everything after the access that made it, so at every
/// point where state is saved the outbox is empty but for the work.
#[derive(Debug, Default)]
pub struct Outbox {
    outputs: Vec<DeviceOutput>,
    console: Vec<u8>,
    /// Descriptors read. Only when a run ends depends on it, never what a guest sees.
    work: u32,
}

impl Outbox {
    /// Whether there is nothing to take.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.console.is_empty() && self.work < MUCH_WORK
    }

    /// Takes the outputs, oldest first.
    pub fn take_outputs(&mut self) -> Vec<DeviceOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// Takes the bytes sent on the consoles, oldest first.
    pub fn take_console(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.console)
    }

    /// Whether devices have read [`MUCH_WORK`] descriptors since this was asked last.
    pub fn take_work(&mut self) -> bool {
        std::mem::take(&mut self.work) >= MUCH_WORK
    }

    /// Adds a byte that the guest sent on the serial console.
    pub(crate) fn push_console(&mut self, byte: u8) {
        self.console.push(byte);
    }

    /// The outbox as the device in virtio slot `device` sees it.
    pub fn for_device(&mut self, device: u8) -> DeviceOut<'_> {
        DeviceOut {
            device,
            outbox: self,
        }
    }
}

/// The outbox as one virtio device sees it: what it puts in carries its slot number.
#[derive(Debug)]
pub struct DeviceOut<'a> {
    device: u8,
    outbox: &'a mut Outbox,
}

impl DeviceOut<'_> {
    /// The same outbox for a shorter time.
    pub fn reborrow(&mut self) -> DeviceOut<'_> {
        DeviceOut {
            device: self.device,
            outbox: self.outbox,
        }
    }

    /// Adds to the descriptors that were read.
    pub(crate) fn worked(&mut self, descriptors: u32) {
        self.outbox.work = self.outbox.work.saturating_add(descriptors);
    }

    /// Adds text that the guest prints on a console of its own.
    pub fn console(&mut self, text: &[u8]) {
        self.outbox.console.extend_from_slice(text);
    }

    /// Adds a packet that the guest sent.
    pub fn frame(&mut self, bytes: Vec<u8>) {
        self.outbox.outputs.push(DeviceOutput::Frame {
            device: self.device,
            bytes,
        });
    }
}
