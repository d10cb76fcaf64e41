//! Residential policy: registrar, proxy and redirect server for the domains of a tenant.
