(*
osxPhotoExporter - exports albums of Photos.app to folders of JPEGs.

Run alone, it asks with dialogs:

	osascript osxPhotoExporter.scpt [EXPORT_FOLDER]

EXPORT_FOLDER defaults to $SKICYCLERUN_LIB_ROOT/pipeline/albums.

With a verb it serves the skicyclerun program:

	preflight                           version of Photos, number of albums, number of media items
	list-albums                         one record per album: id, folders, name, count
	item-ids ALBUM_ID                   the ids of an album's items, then their file names
	item-facts ITEM_ID...               one record per item (see factsRecord)
	export-item ITEM_ID DIRECTORY       exports one item into an empty directory, then its facts
	choose-albums                       a dialog; one record per chosen album: its id
	choose-folder PROMPT [FOLDER]       a dialog; one record: the path

Every verb takes "--timeout SECONDS" as its first words: how long one event sent to Photos may take.

What a verb returns is printed by osascript when the script ends. Records end in character 30, fields are separated by
character 31 and the members of a list inside a field by character 29, so commas, quotes and newlines in names survive.
The first record says who speaks ("skicyclerun", version of this format, verb), the last is "end": a reader knows that
nothing is missing. Dates and numbers are built from their components, because "as text" follows the user's locale.

This file is plain text, ASCII only, so that its meaning does not depend on the encoding osascript takes it for.
Names are never looked up by what they are called (they repeat), and never become part of a script or of a command.
*)

property formatVersion : "1"
property fieldSeparator : character id 31
property recordSeparator : character id 30
property listSeparator : character id 29

-- How long one event may take when nobody says otherwise, and an album of a stand-alone export. Seconds.
property defaultEventSeconds : 120
property albumSeconds : 600

-- A Photos that was just launched reports an empty library until it has opened it. Seconds to wait for that.
property readySeconds : 30

-- Error numbers of our own; those of AppleScript and of Apple events are negative.
property wrongUsage : 9001
property albumKeptChanging : 9002


---------- What osascript calls ----------

on run argv
	-- A script editor passes something other than a list.
	if class of argv is not list then set argv to {}
	if (count of argv) is 0 then return exportWithDialogs("")

	set theVerb to item 1 of argv
	set theWords to rest of argv
	set eventSeconds to defaultEventSeconds
	if (count of theWords) > 1 then
		if item 1 of theWords is "--timeout" then
			set eventSeconds to (item 2 of theWords) as integer
			set theWords to rest of rest of theWords
		end if
	end if

	if theVerb is "preflight" then
		return answer(theVerb, preflight(eventSeconds))
	else if theVerb is "list-albums" then
		return answer(theVerb, listAlbums(eventSeconds))
	else if theVerb is "item-ids" then
		needWords(theVerb, theWords, 1)
		return answer(theVerb, itemIds(item 1 of theWords, eventSeconds))
	else if theVerb is "item-facts" then
		needWords(theVerb, theWords, 1)
		set theRecords to {}
		repeat with thisWord in theWords
			set end of theRecords to factsRecord(contents of thisWord, eventSeconds)
		end repeat
		return answer(theVerb, theRecords)
	else if theVerb is "export-item" then
		needWords(theVerb, theWords, 2)
		return answer(theVerb, exportItem(item 1 of theWords, item 2 of theWords, eventSeconds))
	else if theVerb is "choose-albums" then
		return answer(theVerb, chooseAlbums(eventSeconds))
	else if theVerb is "choose-folder" then
		needWords(theVerb, theWords, 1)
		set startPath to ""
		if (count of theWords) > 1 then set startPath to item 2 of theWords
		return answer(theVerb, {cleaned(chooseFolderPath(item 1 of theWords, startPath))})
	else if theVerb starts with "/" or theVerb starts with "~" then
		return exportWithDialogs(theVerb)
	end if
	error "osxPhotoExporter: neither a verb nor a path: " & theVerb number wrongUsage
end run

on needWords(theVerb, theWords, theLeast)
	if (count of theWords) < theLeast then
		error "osxPhotoExporter: " & theVerb & " needs more words" number wrongUsage
	end if
end needWords


---------- The verbs ----------

on preflight(eventSeconds)
	set wasRunning to application "Photos" is running
	with timeout of eventSeconds seconds
		tell application "Photos"
			set theVersion to version
			set albumCount to count of albums
			set itemCount to count of media items
		end tell
	end timeout
	if not wasRunning then
		set secondsWaited to 0
		repeat while itemCount is 0 and secondsWaited < readySeconds and secondsWaited < eventSeconds
			delay 1
			set secondsWaited to secondsWaited + 1
			with timeout of eventSeconds seconds
				tell application "Photos"
					set albumCount to count of albums
					set itemCount to count of media items
				end tell
			end timeout
		end repeat
	end if
	return {joined({cleaned(theVersion), albumCount as text, itemCount as text}, fieldSeparator)}
end preflight

on listAlbums(eventSeconds)
	set theRecords to {}
	set theEntries to albumEntries(eventSeconds)
	repeat with thisEntry in theEntries
		set thePath to joined(entryFolders of thisEntry, listSeparator)
		set theFields to {entryId of thisEntry, thePath, entryName of thisEntry, (entryCount of thisEntry) as text}
		set end of theRecords to joined(theFields, fieldSeparator)
	end repeat
	return theRecords
end listAlbums

-- Three events whatever the size of the album; the ids are asked for twice, so that the names are known to be theirs.
on itemIds(albumId, eventSeconds)
	repeat 3 times
		with timeout of eventSeconds seconds
			tell application "Photos"
				set idsBefore to id of media items of album id albumId
				set theNames to filename of media items of album id albumId
				set idsAfter to id of media items of album id albumId
			end tell
		end timeout
		if (count of idsBefore) is (count of theNames) and idsBefore is idsAfter then
			set theTotal to (count of idsBefore) as text
			return {theTotal, joined(idsBefore, fieldSeparator), joined(theNames, fieldSeparator)}
		end if
	end repeat
	error "The album kept changing while it was listed." number albumKeptChanging
end itemIds

-- The facts come first: an item that is gone says so at once. Without "using originals" Photos renders the current version.
on exportItem(itemId, theDirectory, eventSeconds)
	set theFacts to factsRecord(itemId, eventSeconds)
	set theDestination to POSIX file theDirectory
	with timeout of eventSeconds seconds
		tell application "Photos"
			set theItem to media item id itemId
			export {theItem} to theDestination
		end tell
	end timeout
	return {theFacts}
end exportItem

-- Fields: id, file name, date (ISO, the Mac's own time zone), latitude, longitude, altitude, favorite (1, 0 or empty),
-- title, description, keywords (a list), names of the properties that Photos would not give (a list).
on factsRecord(itemId, eventSeconds)
	set refused to {}
	set {theDate, theLocation, theAltitude, theTitle} to {missing value, missing value, missing value, missing value}
	set {theDescription, theKeywords, theFavorite} to {missing value, missing value, missing value}
	with timeout of eventSeconds seconds
		-- Not guarded: when this fails there is no such item.
		tell application "Photos" to set theFilename to filename of media item id itemId
		try
			tell application "Photos" to set theDate to date of media item id itemId
		on error errorText number errorNumber
			passOn(errorText, errorNumber)
			set end of refused to "date"
		end try
		try
			tell application "Photos" to set theLocation to location of media item id itemId
		on error errorText number errorNumber
			passOn(errorText, errorNumber)
			set end of refused to "location"
		end try
		try
			tell application "Photos" to set theAltitude to altitude of media item id itemId
		on error errorText number errorNumber
			passOn(errorText, errorNumber)
			set end of refused to "altitude"
		end try
		try
			tell application "Photos" to set theTitle to name of media item id itemId
		on error errorText number errorNumber
			passOn(errorText, errorNumber)
			set end of refused to "name"
		end try
		try
			tell application "Photos" to set theDescription to description of media item id itemId
		on error errorText number errorNumber
			passOn(errorText, errorNumber)
			set end of refused to "description"
		end try
		try
			tell application "Photos" to set theKeywords to keywords of media item id itemId
		on error errorText number errorNumber
			passOn(errorText, errorNumber)
			set end of refused to "keywords"
		end try
		try
			tell application "Photos" to set theFavorite to favorite of media item id itemId
		on error errorText number errorNumber
			passOn(errorText, errorNumber)
			set end of refused to "favorite"
		end try
	end timeout

	set {theLatitude, theLongitude} to {"", ""}
	if class of theLocation is list then
		if (count of theLocation) is 2 then
			set theLatitude to decimalText(item 1 of theLocation)
			set theLongitude to decimalText(item 2 of theLocation)
		end if
	end if
	set favoriteText to ""
	if theFavorite is true then set favoriteText to "1"
	if theFavorite is false then set favoriteText to "0"
	set cleanKeywords to {}
	if class of theKeywords is list then
		repeat with thisKeyword in theKeywords
			set end of cleanKeywords to cleaned(contents of thisKeyword)
		end repeat
	end if
	set theFields to {cleaned(itemId), cleaned(theFilename), isoDate(theDate), theLatitude, theLongitude}
	set theFields to theFields & {decimalText(theAltitude), favoriteText, cleaned(theTitle), cleaned(theDescription)}
	set theFields to theFields & {joined(cleanKeywords, listSeparator), joined(refused, listSeparator)}
	return joined(theFields, fieldSeparator)
end factsRecord

-- A property that cannot be had (-1728) or has no such form (-1700) is left out; anything else is about the whole item.
on passOn(errorText, errorNumber)
	if errorNumber is not -1728 and errorNumber is not -1700 then error errorText number errorNumber
end passOn

on chooseAlbums(eventSeconds)
	set theEntries to albumEntries(eventSeconds)
	if (count of theEntries) is 0 then return {}
	set theChosen to entriesChosenFrom(theEntries, "Choose the albums to export:")
	set theRecords to {}
	repeat with thisEntry in theChosen
		set end of theRecords to entryId of thisEntry
	end repeat
	return theRecords
end chooseAlbums


---------- Albums ----------

-- All albums, those in folders too, as records {entryId, entryFolders, entryName, entryCount} in the order of Photos.
on albumEntries(eventSeconds)
	with timeout of eventSeconds seconds
		tell application "Photos"
			set topAlbums to every album
			set topFolders to every folder
		end tell
	end timeout
	return entriesOf(topAlbums, {}, eventSeconds) & entriesInFolders(topFolders, {}, eventSeconds)
end albumEntries

-- The references that Photos itself returns reach nested folders; "folder id" finds only the top level.
on entriesInFolders(theFolders, thePath, eventSeconds)
	set theEntries to {}
	repeat with thisFolder in theFolders
		try
			with timeout of eventSeconds seconds
				tell application "Photos"
					set folderTitle to name of thisFolder
					set innerAlbums to every album of thisFolder
					set innerFolders to every folder of thisFolder
				end tell
			end timeout
			set innerPath to thePath & {cleaned(folderTitle)}
			set theEntries to theEntries & entriesOf(innerAlbums, innerPath, eventSeconds)
			set theEntries to theEntries & entriesInFolders(innerFolders, innerPath, eventSeconds)
		on error errorText number errorNumber
			if errorNumber is not -1728 then error errorText number errorNumber
			log "A folder was removed while the albums were listed."
		end try
	end repeat
	return theEntries
end entriesInFolders

on entriesOf(theAlbums, thePath, eventSeconds)
	set theEntries to {}
	repeat with thisAlbum in theAlbums
		try
			with timeout of eventSeconds seconds
				tell application "Photos"
					set albumId to id of thisAlbum
					set albumTitle to name of thisAlbum
					set albumCount to count of media items of thisAlbum
				end tell
			end timeout
			set thisEntry to {entryId:cleaned(albumId), entryFolders:thePath, entryName:cleaned(albumTitle), entryCount:albumCount}
			set end of theEntries to thisEntry
		on error errorText number errorNumber
			if errorNumber is not -1728 then error errorText number errorNumber
			log "An album was removed while the albums were listed."
		end try
	end repeat
	return theEntries
end entriesOf


---------- Dialogs ----------

-- Raises -128 when the person cancels. Every label is made unique by its number, because titles repeat.
on entriesChosenFrom(theEntries, thePrompt)
	set theLabels to {}
	set theNumber to 0
	repeat with thisEntry in theEntries
		set theNumber to theNumber + 1
		set theTitle to joined((entryFolders of thisEntry) & {entryName of thisEntry}, " / ")
		set end of theLabels to (theNumber as text) & ". " & theTitle & " (" & (entryCount of thisEntry) & ")"
	end repeat
	set theAnswer to choose from list theLabels with title "Export from Photos" with prompt thePrompt OK button name "Export" with multiple selections allowed
	if theAnswer is false then error "Cancelled." number -128
	set theChosen to {}
	repeat with thisIndex from 1 to count of theLabels
		if theAnswer contains {item thisIndex of theLabels} then set end of theChosen to item thisIndex of theEntries
	end repeat
	return theChosen
end entriesChosenFrom

on chooseFolderPath(thePrompt, startPath)
	if startPath is not "" and isFolder(startPath) then
		set theFolder to choose folder with prompt thePrompt default location ((POSIX file startPath) as alias)
	else
		set theFolder to choose folder with prompt thePrompt
	end if
	return POSIX path of theFolder
end chooseFolderPath


---------- The stand-alone export ----------

on exportWithDialogs(givenPath)
	try
		return exportChosenAlbums(exportFolder(givenPath))
	on error errorText number errorNumber
		if errorNumber is -128 then
			log "Cancelled. What was exported so far is kept."
			return "Cancelled."
		end if
		log "Error: " & errorText & " (" & errorNumber & ")"
		if errorNumber is -1743 then
			set theAdvice to "Allow it in System Settings > Privacy & Security > Automation > your terminal > Photos."
		else
			set theAdvice to "What was exported so far is kept."
		end if
		display dialog "The export stopped: " & errorText & return & return & theAdvice buttons {"OK"} default button "OK" with icon stop
		error errorText number errorNumber
	end try
end exportWithDialogs

-- The folder to export to, checked, and confirmed by the person. Raises -128 when they cancel.
on exportFolder(givenPath)
	set thePath to givenPath
	if thePath is "" then
		set libRoot to do shell script "printf '%s' \"$SKICYCLERUN_LIB_ROOT\""
		if libRoot is not "" then set thePath to libRoot & "/pipeline/albums"
	end if
	if thePath starts with "~/" then
		set thePath to (POSIX path of (path to home folder)) & (text 3 thru -1 of thePath)
	else if thePath is "~" then
		set thePath to POSIX path of (path to home folder)
	end if
	repeat
		if thePath is "" then
			set thePath to chooseFolderPath("Choose the folder to export to:", "")
		else if not isFolder(thePath) then
			log "Export folder not found: " & thePath
			set theQuestion to "The export folder does not exist:" & return & thePath
			set theReply to display dialog theQuestion buttons {"Cancel", "Create It", "Choose Another..."} default button "Choose Another..." cancel button "Cancel" with icon caution
			if button returned of theReply is "Create It" then
				do shell script "/bin/mkdir -p " & quoted form of thePath
			else
				set thePath to chooseFolderPath("Choose the folder to export to:", "")
			end if
		else if not isWritable(thePath) then
			log "Export folder cannot be written: " & thePath
			set theQuestion to "The export folder cannot be written:" & return & thePath
			display dialog theQuestion buttons {"Cancel", "Choose Another..."} default button "Choose Another..." cancel button "Cancel" with icon caution
			set thePath to chooseFolderPath("Choose the folder to export to:", "")
		else
			set theQuestion to "Albums will be exported to:" & return & thePath
			set theReply to display dialog theQuestion buttons {"Cancel", "Choose Another...", "Continue"} default button "Continue" cancel button "Cancel"
			if button returned of theReply is "Continue" then
				log "Export folder: " & thePath
				return thePath
			end if
			set thePath to chooseFolderPath("Choose the folder to export to:", thePath)
		end if
	end repeat
end exportFolder

on exportChosenAlbums(basePath)
	set theEntries to albumEntries(defaultEventSeconds)
	if (count of theEntries) is 0 then
		log "Photos has no albums."
		display dialog "Photos has no albums to export." buttons {"OK"} default button "OK"
		return "Photos has no albums."
	end if
	set theChosen to entriesChosenFrom(theEntries, "Choose the albums to export:")
	set takenNames to {}
	set {exportedCount, failedCount, theIndex} to {0, 0, 0}
	repeat with thisEntry in theChosen
		set theIndex to theIndex + 1
		set theFolderName to freeName(folderNameFor(entryName of thisEntry), takenNames)
		set end of takenNames to theFolderName
		set theFolderPath to basePath & "/" & theFolderName
		log "Album " & theIndex & " of " & (count of theChosen) & ": " & (entryName of thisEntry) & " -> " & theFolderPath
		try
			do shell script "/bin/mkdir -p " & quoted form of theFolderPath
			set {albumExported, albumFailed} to exportAlbum(entryId of thisEntry, theFolderPath)
			set exportedCount to exportedCount + albumExported
			set failedCount to failedCount + albumFailed
		on error errorText number errorNumber
			if errorNumber is -128 or errorNumber is -1743 then error errorText number errorNumber
			set failedCount to failedCount + (entryCount of thisEntry)
			log "Error in album " & (entryName of thisEntry) & ": " & errorText & " (" & errorNumber & ")"
		end try
	end repeat
	set theSummary to "Exported: " & exportedCount & ", failed: " & failedCount & ", albums: " & (count of theChosen) & "."
	log theSummary
	display dialog theSummary & return & basePath buttons {"OK"} default button "OK"
	return theSummary
end exportChosenAlbums

-- Exports item by item, so that one photo fails alone and progress is seen. Returns {exported, failed}.
on exportAlbum(albumId, theFolderPath)
	with timeout of albumSeconds seconds
		tell application "Photos" to set theIds to id of media items of album id albumId
	end timeout
	set theDestination to POSIX file theFolderPath
	set theStart to current date
	set {exportedCount, failedCount} to {0, 0}
	repeat with thisId in theIds
		set itemId to contents of thisId
		set secondsLeft to albumSeconds - ((current date) - theStart)
		if secondsLeft < 1 then
			set leftCount to (count of theIds) - exportedCount - failedCount
			log "Error: the album took longer than " & albumSeconds & " seconds; " & leftCount & " photos were left out."
			return {exportedCount, failedCount + leftCount}
		end if
		try
			with timeout of secondsLeft seconds
				tell application "Photos"
					set theItem to media item id itemId
					export {theItem} to theDestination
				end tell
			end timeout
			set exportedCount to exportedCount + 1
			log "Photo " & (exportedCount + failedCount) & " of " & (count of theIds)
		on error errorText number errorNumber
			if errorNumber is -128 or errorNumber is -1743 then error errorText number errorNumber
			set failedCount to failedCount + 1
			log "Error in photo " & (exportedCount + failedCount) & " of " & (count of theIds) & ": " & errorText & " (" & errorNumber & ")"
		end try
	end repeat
	return {exportedCount, failedCount}
end exportAlbum

on isFolder(thePath)
	try
		do shell script "test -d " & quoted form of thePath
		return true
	on error
		return false
	end try
end isFolder

on isWritable(thePath)
	try
		do shell script "test -w " & quoted form of thePath
		return true
	on error
		return false
	end try
end isWritable


---------- Folder names ----------

-- / : \ * ? " < > |, control characters and bidirectional overrides become _, leading and trailing dots and spaces go,
-- at most 240 bytes of UTF-8 (which leaves room for a number), never empty, never a device name of Windows.
on folderNameFor(theTitle)
	set theCodes to {}
	set titleCodes to codesOf(theTitle)
	repeat with thisCode in titleCodes
		set theCode to contents of thisCode
		if theCode < 32 or (theCode > 126 and theCode < 160) then
			set theCode to 95
		else if {34, 42, 47, 58, 60, 62, 63, 92, 124} contains {theCode} then
			set theCode to 95
		else if (theCode > 8231 and theCode < 8239) or (theCode > 8293 and theCode < 8298) then
			set theCode to 95
		end if
		set end of theCodes to theCode
	end repeat
	set theCodes to codesWithinBytes(codesTrimmed(theCodes), 240)
	set theCodes to codesTrimmed(theCodes)
	if (count of theCodes) is 0 then return "untitled"
	set theName to string id theCodes
	if isDeviceName(theName) then set theName to "_" & theName
	return theName
end folderNameFor

on codesTrimmed(theCodes)
	repeat while (count of theCodes) > 0
		if {32, 46, 160} does not contain {item 1 of theCodes} then exit repeat
		set theCodes to rest of theCodes
	end repeat
	repeat while (count of theCodes) > 0
		if {32, 46, 160} does not contain {item -1 of theCodes} then exit repeat
		if (count of theCodes) is 1 then
			set theCodes to {}
		else
			set theCodes to items 1 thru -2 of theCodes
		end if
	end repeat
	return theCodes
end codesTrimmed

on codesWithinBytes(theCodes, theMost)
	set keptCodes to {}
	set theBytes to 0
	repeat with thisCode in theCodes
		set theCode to contents of thisCode
		if theCode < 128 then
			set theBytes to theBytes + 1
		else if theCode < 2048 then
			set theBytes to theBytes + 2
		else if theCode < 65536 then
			set theBytes to theBytes + 3
		else
			set theBytes to theBytes + 4
		end if
		if theBytes > theMost then exit repeat
		set end of keptCodes to theCode
	end repeat
	return keptCodes
end codesWithinBytes

on isDeviceName(theName)
	set savedDelimiters to AppleScript's text item delimiters
	set AppleScript's text item delimiters to "."
	set theStem to text item 1 of theName
	set AppleScript's text item delimiters to savedDelimiters
	if {"CON", "PRN", "AUX", "NUL"} contains {theStem} then return true
	if (count of theStem) is not 4 then return false
	return (theStem starts with "COM" or theStem starts with "LPT") and "0123456789" contains (character 4 of theStem)
end isDeviceName

-- AppleScript compares without regard to case, as a case-insensitive disk does.
on freeName(theName, takenNames)
	set theCandidate to theName
	set theNumber to 1
	repeat while takenNames contains {theCandidate}
		set theNumber to theNumber + 1
		set theCandidate to theName & " (" & theNumber & ")"
	end repeat
	return theCandidate
end freeName


---------- Text ----------

on answer(theVerb, theRecords)
	set theHeader to joined({"skicyclerun", formatVersion, theVerb}, fieldSeparator)
	return joined({theHeader} & theRecords & {"end", ""}, recordSeparator)
end answer

on joined(theList, theSeparator)
	set savedDelimiters to AppleScript's text item delimiters
	set AppleScript's text item delimiters to theSeparator
	set theText to theList as text
	set AppleScript's text item delimiters to savedDelimiters
	return theText
end joined

-- The code points of a text, always as a list ("id of" gives a bare number for one character).
on codesOf(theText)
	if theText is missing value then return {}
	if (count of (theText as text)) is 0 then return {}
	set theCodes to id of (theText as text)
	if class of theCodes is not list then set theCodes to {theCodes}
	return theCodes
end codesOf

-- Text fit for a field: missing value is empty, our separators become spaces. Code points are compared, not characters,
-- because a comparison of texts may ignore control characters.
on cleaned(theValue)
	set theCodes to codesOf(theValue)
	if theCodes contains {29} or theCodes contains {30} or theCodes contains {31} then
		set cleanCodes to {}
		repeat with thisCode in theCodes
			set theCode to contents of thisCode
			if {29, 30, 31} contains {theCode} then set theCode to 32
			set end of cleanCodes to theCode
		end repeat
		return string id cleanCodes
	end if
	if (count of theCodes) is 0 then return ""
	return theValue as text
end cleaned

-- 2024-03-31T14:05:09 from components; "month as integer" because its text is in the user's language.
on isoDate(theDate)
	if class of theDate is not date then return ""
	set theSeconds to time of theDate
	set theDay to padded(year of theDate, 4) & "-" & padded((month of theDate) as integer, 2) & "-" & padded(day of theDate, 2)
	set theHour to padded(theSeconds div 3600, 2)
	set theMinute to padded((theSeconds mod 3600) div 60, 2)
	return theDay & "T" & theHour & ":" & theMinute & ":" & padded(theSeconds mod 60, 2)
end isoDate

on padded(theNumber, theWidth)
	set theDigits to (theNumber as integer) as text
	repeat while (count of theDigits) < theWidth
		set theDigits to "0" & theDigits
	end repeat
	return theDigits
end padded

-- A real with eight decimals and a point. Built from integers below 2^29, the largest AppleScript writes out in full.
on decimalText(theValue)
	if theValue is missing value then return ""
	set theReal to theValue as real
	set theSign to ""
	if theReal < 0 then
		set theSign to "-"
		set theReal to -theReal
	end if
	if theReal > 100000000 then return ""
	set theWhole to theReal div 1
	set theFraction to round ((theReal - theWhole) * 100000000)
	if theFraction > 99999999 then
		set theWhole to theWhole + 1
		set theFraction to theFraction - 100000000
	end if
	return theSign & padded(theWhole, 1) & "." & padded(theFraction, 8)
end decimalText
