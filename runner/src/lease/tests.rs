//! Leases of dead and of forgetful owners.

use super::*;
