//! A whole controller: registers, doorbells and plain memory on one side, block devices on the
//! other, its poll groups between them, all in one thread and pass by pass.

mod commands;
mod dma;
mod events;
mod hostile;
mod interrupts;
mod machine;
mod queues;
mod resets;
mod resume;
