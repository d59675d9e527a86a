// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (c) 2026 the espgw authors

// The plugin kernel-espgw: charon keeps its own way to the kernel's interfaces and routes
// (kernel-netlink), and leaves ESP to espgw.

#include "compat.h"
#include "kernel_ipsec.h"

METHOD(plugin_t, get_name, char *, plugin_t *this)
{
	return "kernel-espgw";
}

METHOD(plugin_t, get_features, int, plugin_t *this, plugin_feature_t *features[])
{
	static plugin_feature_t f[] = {
		PLUGIN_CALLBACK(kernel_ipsec_register, kernel_espgw_ipsec_create),
		PLUGIN_PROVIDE(CUSTOM, "kernel-ipsec"),
		PLUGIN_DEPENDS(RNG, RNG_WEAK),
	};
	*features = f;
	return countof(f);
}

METHOD(plugin_t, destroy, void, plugin_t *this)
{
	free(this);
}

#pragma GCC visibility push(default)
// From 6.0.3 on, charon's loader looks at it: the ABI may change with every version.
extern const char *kernel_espgw_plugin_version;
const char *kernel_espgw_plugin_version = VERSION;

plugin_t *kernel_espgw_plugin_create(void);
#pragma GCC visibility pop

plugin_t *kernel_espgw_plugin_create(void)
{
	plugin_t *this;
	INIT(this, .get_name = _get_name, .get_features = _get_features, .destroy = _destroy);
	return this;
}
