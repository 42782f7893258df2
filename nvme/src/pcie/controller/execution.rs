//! How far an admin command is after it was executed.

/// What became of an admin command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Execution {
    /// It completes now, with this completion dword 0.
    Done(u32),
    /// It completes when every poll group has the new view of the controller.
    WithView(u32),
    /// It completes when a poll group has answered.
    Pending,
    /// It waits for an event without holding room in the completion queue.
    Parked,
}
