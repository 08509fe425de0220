//! The whole room, as its caller sees it.

mod damage;
mod golden;
mod limits;
mod model;
mod permissions;
mod store;
