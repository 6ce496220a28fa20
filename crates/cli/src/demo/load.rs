//! Those who ask the guest while nodes are killed, and what they can tell.

use super::error::DemoError;
use super::report::Told;

/// Clients at work. They go on through every takeover, and judge what they are answered.
pub(super) trait Load {
    /// Microseconds since the clients' start.
    fn now_us(&self) -> u64;

    /// When the `nth` answer after `since_us` came (1 is the first), if it has.
    fn answer_after(&self, since_us: u64, nth: usize) -> Option<u64>;

    /// Answers after a kill that show that the other node answers: more than can still have been
    /// on their way.
    fn flowing_answers(&self) -> usize;

    /// When each answer came so far, in microseconds since the clients' start; never decreasing.
    fn times_us(&self) -> Vec<u64>;

    /// What no takeover may do to a client, if it has happened.
    fn fault(&mut self) -> Option<String>;

    /// Looks after a takeover whether the guest still has what it has answered for. What there is
    /// to say of it.
    ///
    /// # Errors
    /// What is missing or wrong.
    fn audit(&mut self) -> Result<Option<String>, String>;

    /// Ends all clients and gives what they saw. With `orderly`, last answers are waited for and
    /// everything is judged; else nothing more will come.
    fn finish(self: Box<Self>, orderly: bool) -> Result<Told, DemoError>;
}
