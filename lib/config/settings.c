// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

#include <ctype.h>
#include <stdlib.h>

#include "config/settings.h"

// `is_all`: nothing else comes after them.
static void choices_write(FILE *stream, const char *const *choices, bool is_all)
{
	for (unsigned int i = 0; choices[i] != NULL; i++) {
		const char *joint = i == 0 ? "" : choices[i + 1] == NULL && is_all ? " or " : ", ";
		fprintf(stream, "%s\"%s\"", joint, choices[i]);
	}
}

static void expected_write(FILE *stream, const struct setting *setting)
{
	switch (setting->type) {
	case SETTING_INTEGER:
		if (setting->choices != NULL) {
			choices_write(stream, setting->choices, false);
			fputs(" or ", stream);
		}
		fprintf(stream, "%sa %s from %lld to %lld", setting->zero ? "0 or " : "",
			setting->power_of_two ? "power of two" : "whole number",
			(long long)setting->minimum, (long long)setting->maximum);
		if (setting->maximum > INT32_MAX)
			fprintf(stream, ", with an L at its end from %lld on", INT32_MAX + 1LL);
		break;
	case SETTING_BOOLEAN:
		fputs("true or false", stream);
		break;
	case SETTING_CHOICE:
		choices_write(stream, setting->choices, true);
		break;
	case SETTING_RATE:
		choices_write(stream, setting->choices, true);
		fprintf(stream, ", or a whole number of milliseconds from %lld to %lld",
			(long long)setting->minimum, (long long)setting->maximum);
		break;
	case SETTING_NAME:
		fputs("a name of 1 to 15 of the characters A-Z a-z 0-9 . _ -", stream);
		break;
	case SETTING_PATH:
		fprintf(stream, "a path that begins with / and has at most %zu bytes",
			setting->size - 1);
		break;
	case SETTING_MODE:
		fputs("a file mode in octal and in quotes, such as \"0660\"", stream);
		break;
	case SETTING_DEVICE:
		fputs("a PCI address such as \"0000:3b:00.0\", or a virtual device such as "
		      "\"net_af_packet0,iface=eth1\"",
			stream);
		break;
	case SETTING_ADDRESS:
		fputs("an IPv4 or IPv6 address such as \"192.0.2.1\"", stream);
		break;
	case SETTING_INTERFACE_ADDRESS:
		fputs("an address with prefix length such as \"192.0.2.1/24\"", stream);
		break;
	case SETTING_PREFIX:
		fputs("a prefix such as \"192.168.192.0/26\"", stream);
		break;
	case SETTING_MAC:
		fputs("a MAC address such as \"02:00:00:00:00:01\"", stream);
		break;
	default:
		fputs("a group: { name = value; ... }", stream);
		break;
	}
}

char *settings_expected(const struct setting *setting, char text[SETTING_TEXT])
{
	text[0] = '\0';
	FILE *stream = fmemopen(text, SETTING_TEXT, "w");
	if (stream == NULL)
		return text;
	if (setting->expected != NULL)
		fputs(setting->expected, stream);
	else
		expected_write(stream, setting);
	fclose(stream);
	return text;
}

static const char *type_name(const config_setting_t *setting)
{
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		return "a number";
	case CONFIG_TYPE_FLOAT:
		return "a number with a point";
	case CONFIG_TYPE_STRING:
		return "a string";
	case CONFIG_TYPE_BOOL:
		return "a boolean";
	case CONFIG_TYPE_ARRAY:
		return "an array";
	case CONFIG_TYPE_LIST:
		return "a list";
	default:
		return "a group";
	}
}

static char *address_write(const struct packet_address *address, char *text)
{
	if (address->family == 0)
		snprintf(text, SETTING_VALUE_TEXT, "none");
	else
		packet_address_format(address, text);
	return text;
}

static char *prefix_write(const struct packet_address *address, uint8_t length, char *text)
{
	struct packet_prefix prefix = {*address, length}; // as it is, host bits kept
	return packet_prefix_format(&prefix, text);
}

static char *integer_write(const struct setting *setting, uint32_t number, char *text)
{
	for (unsigned int i = 0; setting->choices != NULL && setting->choices[i] != NULL; i++)
		if (number == SETTING_WORD(i))
			return strcpy(text, setting->choices[i]);
	// Beyond the maximum: what the setting is when the file does not say it.
	if (number > setting->maximum)
		snprintf(text, SETTING_VALUE_TEXT, "none");
	else
		snprintf(text, SETTING_VALUE_TEXT, "%u", number);
	return text;
}

static char *rate_write(
	const struct setting *setting, uint32_t number, char text[SETTING_VALUE_TEXT])
{
	for (unsigned int i = 0; setting->choices[i] != NULL; i++) {
		if (setting->values[i] == number) {
			snprintf(text, SETTING_VALUE_TEXT, "%s", setting->choices[i]);
			return text;
		}
	}
	return integer_write(setting, number, text);
}

char *settings_format(
	const struct setting *setting, const void *object, char text[SETTING_VALUE_TEXT])
{
	const void *at = (const char *)object + setting->offset;
	const struct packet_interface_address *interface = at;
	const struct packet_prefix *prefix = at;
	uint32_t number = 0;
	if (setting->size == sizeof(number))
		memcpy(&number, at, sizeof(number));
	switch (setting->type) {
	case SETTING_RATE:
		return rate_write(setting, number, text);
	case SETTING_INTEGER:
		return integer_write(setting, number, text);
	case SETTING_BOOLEAN:
		snprintf(text, SETTING_VALUE_TEXT, "%s", *(const bool *)at ? "true" : "false");
		return text;
	case SETTING_CHOICE:
		snprintf(text, SETTING_VALUE_TEXT, "%s", setting->choices[number]);
		return text;
	case SETTING_MODE:
		snprintf(text, SETTING_VALUE_TEXT, "%04o", number);
		return text;
	case SETTING_ADDRESS:
		return address_write(at, text);
	case SETTING_INTERFACE_ADDRESS:
		return prefix_write(&interface->address, interface->length, text);
	case SETTING_PREFIX:
		return prefix_write(&prefix->address, prefix->length, text);
	case SETTING_MAC:
		snprintf(text, SETTING_VALUE_TEXT, RTE_ETHER_ADDR_PRT_FMT,
			RTE_ETHER_ADDR_BYTES((const struct rte_ether_addr *)at));
		return text;
	default: // a name, path or device
		snprintf(text, SETTING_VALUE_TEXT, "%s", (const char *)at);
		return text;
	}
}

static void wrong_type_report(
	struct reader *reader, const config_setting_t *value, const struct setting *setting)
{
	char expected[SETTING_TEXT];
	reader_error(reader, value, "is %s; write %s", type_name(value),
		settings_expected(setting, expected));
}

// What is wrong with a text; the right thing is added from the table. Empty: nothing is wrong.
struct complaint {
	char text[160];
	bool complete; // says what is right already
};

#define COMPLAIN(complaint, ...) \
	((void)snprintf((complaint)->text, sizeof((complaint)->text), __VA_ARGS__))

static void choice_set(
	const struct setting *setting, const char *text, void *target, struct complaint *complaint)
{
	for (unsigned int i = 0; setting->choices[i] != NULL; i++) {
		if (strcmp(setting->choices[i], text) == 0) {
			uint32_t value = setting->type == SETTING_INTEGER ? SETTING_WORD(i) : i;
			memcpy(target, &value, sizeof(value));
			return;
		}
	}
	COMPLAIN(complaint, "is not one of the choices");
}

static void rate_set(
	const struct setting *setting, const char *text, void *target, struct complaint *complaint)
{
	uint32_t choice = 0;
	choice_set(setting, text, &choice, complaint);
	if (complaint->text[0] == '\0')
		memcpy(target, &setting->values[choice], sizeof(choice));
}

static void name_set(const char *text, char *target, struct complaint *complaint)
{
	// A subset of what the kernel takes (it also knows "%d" as a pattern and ':' as an alias).
	static const char characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					 "0123456789._-";
	// Directories of /proc/sys/net/ipv4/conf, the loopback interface, and of file systems.
	static const char *const reserved[] = {"all", "default", "lo", ".", ".."};
	size_t length = strlen(text), valid = strspn(text, characters);
	if (length == 0)
		COMPLAIN(complaint, "is empty");
	else if (length >= CONFIG_NAME_SIZE)
		COMPLAIN(complaint, "has %zu characters, more than an interface's name can have",
			length);
	else if (valid < length && isprint((unsigned char)text[valid]))
		COMPLAIN(complaint, "has the character '%c'", text[valid]);
	else if (valid < length)
		COMPLAIN(complaint, "has a character that can't be printed");
	for (unsigned int i = 0; i < RTE_DIM(reserved); i++) {
		if (strcmp(text, reserved[i]) == 0)
			COMPLAIN(complaint, "is reserved by the kernel");
	}
	if (complaint->text[0] == '\0')
		memcpy(target, text, length + 1);
}

static void path_set(
	const struct setting *setting, const char *text, char *target, struct complaint *complaint)
{
	size_t length = strlen(text);
	if (text[0] != '/')
		COMPLAIN(complaint, "is not absolute");
	else if (length >= setting->size)
		COMPLAIN(complaint, "has %zu bytes", length);
	else
		memcpy(target, text, length + 1);
}

static void mode_set(const char *text, uint32_t *target, struct complaint *complaint)
{
	size_t digits = strspn(text, "01234567");
	if (digits < 3 || digits > 4 || text[digits] != '\0' || strtoul(text, NULL, 8) > 0777)
		COMPLAIN(complaint, "is no file mode from 0000 to 0777");
	else
		*target = (uint32_t)strtoul(text, NULL, 8);
}

// [DDDD:]BB:DD.F, with arguments or without.
static bool is_pci_address(const char *text)
{
	static const char *const forms[] = {"xxxx:xx:xx.o", "xx:xx.o"};
	for (unsigned int f = 0; f < RTE_DIM(forms); f++) {
		const char *form = forms[f];
		const char *c = text;
		for (; *form != '\0'; form++, c++) {
			if (*form == 'x'       ? !isxdigit((unsigned char)*c)
				: *form == 'o' ? *c < '0' || *c > '7'
					       : *c != *form)
				break;
		}
		if (*form == '\0' && (*c == '\0' || *c == ','))
			return true;
	}
	return false;
}

static void device_set(const char *text, char *target, struct complaint *complaint)
{
	size_t length = strlen(text);
	if (length >= CONFIG_DEVICE_SIZE)
		COMPLAIN(complaint, "has %zu characters, more than %d", length,
			CONFIG_DEVICE_SIZE - 1);
	else if (strcspn(text, " \t\r\n\v\f") < length)
		COMPLAIN(complaint, "has a space in it");
	else if (!is_pci_address(text) && (strncmp(text, "net_", 4) != 0 || text[4] == '\0'))
		COMPLAIN(complaint, "is no device");
	else
		memcpy(target, text, length + 1);
}

// Whether a host can have this address.
static bool is_unicast(const struct packet_address *address, struct complaint *complaint)
{
	if (packet_address_is_unspecified(address))
		COMPLAIN(complaint, "is the unspecified address");
	else if (packet_address_is_multicast(address))
		COMPLAIN(complaint, "is a multicast address");
	else if (packet_address_is_loopback(address))
		COMPLAIN(complaint, "is a loopback address");
	else if (address->family == 4 && packet_address_v4_host(address) == UINT32_MAX)
		COMPLAIN(complaint, "is the broadcast address");
	return complaint->text[0] == '\0';
}

static void address_set(const char *text, void *target, struct complaint *complaint)
{
	struct packet_address address;
	struct packet_interface_address with_length;
	char right[PACKET_ADDRESS_TEXT];
	if (packet_address_parse(text, &address)) {
		if (is_unicast(&address, complaint))
			memcpy(target, &address, sizeof(address));
	} else if (packet_interface_address_parse(text, &with_length)) {
		COMPLAIN(complaint, "has a prefix length; write \"%s\"",
			packet_address_format(&with_length.address, right));
		complaint->complete = true;
	} else {
		COMPLAIN(complaint, "is no address");
	}
}

static void interface_address_set(const char *text, void *target, struct complaint *complaint)
{
	struct packet_interface_address address;
	struct packet_address without;
	if (packet_interface_address_parse(text, &address)) {
		if (is_unicast(&address.address, complaint))
			memcpy(target, &address, sizeof(address));
	} else if (packet_address_parse(text, &without)) {
		COMPLAIN(complaint, "has no prefix length");
	} else {
		COMPLAIN(complaint, "is no address with prefix length");
	}
}

static void prefix_set(const char *text, void *target, struct complaint *complaint)
{
	struct packet_interface_address parsed;
	struct packet_address single;
	char right[PACKET_PREFIX_TEXT];
	if (packet_address_parse(text, &single)) {
		COMPLAIN(complaint, "has no prefix length; for this address alone write \"%s/%u\"",
			packet_address_format(&single, right), packet_address_bits(&single));
		complaint->complete = true;
		return;
	}
	if (!packet_interface_address_parse(text, &parsed)) {
		COMPLAIN(complaint, "is no prefix");
		return;
	}
	struct packet_prefix prefix = packet_prefix_of(&parsed.address, parsed.length);
	if (packet_prefix_has_host_bits(&parsed)) {
		COMPLAIN(complaint, "has host bits set; write \"%s\"",
			packet_prefix_format(&prefix, right));
		complaint->complete = true;
	} else if (packet_address_is_multicast(&prefix.address)) {
		COMPLAIN(complaint, "is multicast, which is not routed");
	} else if (packet_address_is_loopback(&prefix.address)) {
		COMPLAIN(complaint, "is loopback, which is not routed");
	} else {
		memcpy(target, &prefix, sizeof(prefix));
	}
}

static void mac_set(const char *text, void *target, struct complaint *complaint)
{
	struct rte_ether_addr mac;
	if (!packet_mac_parse(text, &mac))
		COMPLAIN(complaint, "is no MAC address");
	else if (rte_is_zero_ether_addr(&mac))
		COMPLAIN(complaint, "is all zeros");
	else if (rte_is_multicast_ether_addr(&mac))
		COMPLAIN(complaint, "is a multicast MAC address (the first byte is odd)");
	else
		memcpy(target, &mac, sizeof(mac));
}

static void text_set(
	const struct setting *setting, const char *text, void *target, struct complaint *complaint)
{
	switch (setting->type) {
	case SETTING_INTEGER: // by word
	case SETTING_CHOICE:
		return choice_set(setting, text, target, complaint);
	case SETTING_RATE:
		return rate_set(setting, text, target, complaint);
	case SETTING_NAME:
		return name_set(text, target, complaint);
	case SETTING_PATH:
		return path_set(setting, text, target, complaint);
	case SETTING_MODE:
		return mode_set(text, target, complaint);
	case SETTING_DEVICE:
		return device_set(text, target, complaint);
	case SETTING_ADDRESS:
		return address_set(text, target, complaint);
	case SETTING_INTERFACE_ADDRESS:
		return interface_address_set(text, target, complaint);
	case SETTING_PREFIX:
		return prefix_set(text, target, complaint);
	case SETTING_MAC:
		return mac_set(text, target, complaint);
	default: // a reference: the part's own code resolves it
		return;
	}
}

static bool integer_set(struct reader *reader, const config_setting_t *value,
	const struct setting *setting, void *target)
{
	long long number = config_setting_get_int64(value);
	char expected[SETTING_TEXT];
	const char *wrong = NULL;
	if (number < setting->minimum)
		wrong = "is too small";
	else if (number > setting->maximum)
		wrong = "is too large";
	else if (setting->power_of_two && (number & (number - 1)) != 0)
		wrong = "is no power of two";
	if (wrong != NULL && !(number == 0 && setting->zero)) {
		reader_error(
			reader, value, "%s; write %s", wrong, settings_expected(setting, expected));
		return false;
	}
	uint32_t stored = (uint32_t)number;
	memcpy(target, &stored, sizeof(stored));
	return true;
}

bool settings_set(struct reader *reader, const config_setting_t *value,
	const struct setting *setting, void *object)
{
	void *target = (char *)object + setting->offset;
	int type = config_setting_type(value);
	if ((setting->type == SETTING_INTEGER || setting->type == SETTING_RATE) &&
		(type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64))
		return integer_set(reader, value, setting, target);
	if (setting->type == SETTING_BOOLEAN && type == CONFIG_TYPE_BOOL) {
		*(bool *)target = config_setting_get_bool(value);
		return true;
	}
	if ((setting->type == SETTING_INTEGER && setting->choices == NULL) ||
		setting->type == SETTING_BOOLEAN || type != CONFIG_TYPE_STRING) {
		wrong_type_report(reader, value, setting);
		return false;
	}
	struct complaint complaint = {0};
	char expected[SETTING_TEXT];
	text_set(setting, config_setting_get_string(value), target, &complaint);
	if (complaint.text[0] == '\0')
		return true;
	if (complaint.complete)
		reader_error(reader, value, "%s", complaint.text);
	else
		reader_error(reader, value, "%s; write %s", complaint.text,
			settings_expected(setting, expected));
	return false;
}

static void fallback_set(const struct setting *setting, void *object)
{
	void *target = (char *)object + setting->offset;
	struct complaint complaint = {0};
	if (setting->fallback == NULL)
		return;
	if (setting->type == SETTING_BOOLEAN) {
		*(bool *)target = strcmp(setting->fallback, "true") == 0;
	} else if (setting->type == SETTING_INTEGER && isdigit(setting->fallback[0])) {
		uint32_t number = (uint32_t)strtoul(setting->fallback, NULL, 10);
		memcpy(target, &number, sizeof(number));
	} else {
		text_set(setting, setting->fallback, target, &complaint);
	}
}

static void unknown_report(
	struct reader *reader, const config_setting_t *value, const struct setting_group *group)
{
	struct reader_nearest nearest = {.word = config_setting_name(value)};
	char known[512] = "";
	size_t used = 0;
	for (unsigned int i = 0; i < group->count && used < sizeof(known); i++) {
		reader_nearest_try(&nearest, group->settings[i].name);
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
			i > 0 ? ", " : "", group->settings[i].name);
	}
	if (nearest.best != NULL)
		reader_error(reader, value, "unknown setting; did you mean \"%s\"?", nearest.best);
	else
		reader_error(reader, value, "unknown setting; known here are %s", known);
}

static void unknown_settings_report(
	struct reader *reader, const config_setting_t *setting, const struct setting_group *group)
{
	int length = config_setting_length(setting);
	for (int i = 0; i < length; i++) {
		const config_setting_t *value = config_setting_get_elem(setting, (unsigned int)i);
		unsigned int j = 0;
		while (j < group->count &&
			strcmp(group->settings[j].name, config_setting_name(value)) != 0)
			j++;
		if (j == group->count)
			unknown_report(reader, value, group);
	}
}

// The setting's value, its default, or its own table's.
static void row_read(struct reader *reader, const config_setting_t *group,
	const struct setting *setting, void *object)
{
	const config_setting_t *value =
		group != NULL ? config_setting_get_member(group, setting->name) : NULL;
	char expected[SETTING_TEXT];
	if (value == NULL && setting->required && group != NULL)
		reader_member_error(reader, group, setting->name, "is missing; write %s",
			settings_expected(setting, expected));
	switch (setting->type) {
	case SETTING_ARRAY:
	case SETTING_LIST:
		return;
	case SETTING_GROUP:
		if (value != NULL && !config_setting_is_group(value)) {
			wrong_type_report(reader, value, setting);
			value = NULL;
		}
		settings_read(reader, value, setting->group, (char *)object + setting->offset);
		return;
	default:
		fallback_set(setting, object);
		if (value != NULL)
			settings_set(reader, value, setting, object);
	}
}

void settings_read(struct reader *reader, const config_setting_t *setting,
	const struct setting_group *group, void *object)
{
	for (unsigned int i = 0; i < group->count; i++)
		row_read(reader, setting, &group->settings[i], object);
	if (setting != NULL)
		unknown_settings_report(reader, setting, group);
}

static const struct setting *row_find(const struct setting_group *group, const char *name)
{
	for (unsigned int i = 0; i < group->count; i++) {
		if (strcmp(group->settings[i].name, name) == 0)
			return &group->settings[i];
	}
	return NULL;
}

unsigned int settings_read_list(struct reader *reader, const char *name,
	const struct setting_group *group, unsigned int maximum, void **objects)
{
	const config_setting_t *list = config_setting_get_member(reader->root, name);
	if (list == NULL)
		return 0;
	if (!config_setting_is_list(list)) {
		wrong_type_report(reader, list, row_find(&settings_root, name));
		return 0;
	}
	unsigned int length = (unsigned int)config_setting_length(list);
	if (length > maximum) {
		reader_error(
			reader, list, "has %u elements; at most %u are supported", length, maximum);
		length = maximum;
	}
	*objects = calloc(length > 0 ? length : 1, group->object_size);
	if (*objects == NULL) {
		reader->out_of_memory = true;
		return 0;
	}
	for (unsigned int i = 0; i < length; i++) {
		const config_setting_t *element = config_setting_get_elem(list, i);
		char *object = (char *)*objects + i * group->object_size;
		*(int *)object = (int)config_setting_source_line(element);
		bool is_group = config_setting_is_group(element);
		if (!is_group)
			reader_error(reader, element, "is %s; write a group: { name = value; ... }",
				type_name(element));
		settings_read(reader, is_group ? element : NULL, group, object);
	}
	return length;
}

void settings_read_array(struct reader *reader, const config_setting_t *group, const char *name,
	unsigned int maximum,
	void (*each)(struct reader *reader, const config_setting_t *element, unsigned int index,
		void *argument),
	void *argument)
{
	const config_setting_t *array = config_setting_get_member(group, name);
	if (array == NULL)
		return;
	if (!config_setting_is_array(array) && !config_setting_is_list(array)) {
		reader_error(
			reader, array, "is %s; write an array: [ ..., ... ]", type_name(array));
		return;
	}
	unsigned int length = (unsigned int)config_setting_length(array);
	if (length > maximum) {
		reader_error(reader, array, "has %u elements; at most %u are supported", length,
			maximum);
		length = maximum;
	}
	for (unsigned int i = 0; i < length; i++)
		each(reader, config_setting_get_elem(array, i), i, argument);
}
