//! Bugs that the simulation plants to prove that it would notice them. Outside tests nothing can be planted.

/// A mistake in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Sinks may publish an epoch as soon as it is planned.
    PublishBeforeDurable,
    /// An epoch counts as durable when its own record is, whatever happened to the records before it.
    DurableWithGaps,
    /// Readers take a record whatever predecessor it names.
    NoChainCheck,
    /// What executors say of an attempt that is given up counts.
    OldErasAccepted,
    /// A takeover writes its claim behind everything that is in the log instead of into the first free slot.
    ClaimAfterGap,
    /// A look does not ask for newer generations, and a generation is taken without asking.
    LookAtLogOnly,
    /// A manifest is written when the tasks have uploaded, without waiting for the sinks.
    ManifestBeforePublished,
    /// Plans are dispatched to an executor as soon as it is ready, without waiting for the others.
    DispatchBeforeAllReady,
    /// An epoch is made void although a part of it is published.
    VoidPublished,
    /// The log is truncated up to the newest checkpoint although older ones are kept.
    TruncateTooMuch,
}

/// True if the running test has planted this bug.
#[cfg(not(test))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// True if the running test has planted this bug.
#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug on this thread (or takes it out).
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
