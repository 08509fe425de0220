//! Checkpoints and openings under every fault that a disk has for them.

mod damage;
mod figures;
mod opening;
mod reads;
mod refusal;
mod rig;
mod shrinking;
