(*
osxPhotoExporter - exports albums of Photos.app to folders of JPEGs.

Run alone, it asks with dialogs:

	osascript osxPhotoExporter.scpt [EXPORT_FOLDER]

EXPORT_FOLDER defaults to $SKICYCLERUN_LIB_ROOT/pipeline/albums. What it does is logged, and written into a file in
$SKICYCLERUN_LIB_ROOT/logs, or in ~/Library/Logs/skicyclerun where there is no such folder.

With a verb it serves the skicyclerun program:

	preflight                           version of Photos, number of albums, number of media items
	list-albums                         one record per album: id, folders, name
	album-counts ALBUM_ID...            one record per album: id, number of items; none for an album that is gone
	item-ids ALBUM_ID                   the ids of an album's items, then their file names
	item-facts ITEM_ID...               one record per item (see factsRecord)
	export-item ITEM_ID DIRECTORY       exports one item into an empty directory, then its facts
	choose-albums                       a dialog; one record per chosen album: its id
	choose-folder PROMPT [FOLDER]       a dialog; one record: the path

Every verb takes "--timeout SECONDS" as its first words: how long one event sent to Photos may take. export-item takes
"--growth MILLISECONDS" too: so much longer for each megabyte of the item.

While a verb is at work it logs how far it is, for whoever waits: "skicyclerun: listed N" albums, "skicyclerun: counted N",
"skicyclerun: size N" megabytes of the item that is about to be exported, "skicyclerun: at ids" and "skicyclerun: at names".

What a verb returns is printed by osascript when the script ends. Records end in character 30, fields are separated by
character 31 and the members of a list inside a field by character 29, so commas, quotes and newlines in names survive.
The first record says who speaks ("skicyclerun", version of this format, verb), the last is "end": a reader knows that
nothing is missing. Dates and numbers are built from their components, because "as text" follows the user's locale.

This file is plain text, ASCII only, so that its meaning does not depend on the encoding osascript takes it for.
Names are never looked up by what they are called (they repeat), and never become part of a script or of a command.
*)

property formatVersion : "2"
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

-- Of the call at work: albums found so far. Of a stand-alone export: the path of its log file, empty for none.
property albumsListed : 0
property logPath : ""


---------- What osascript calls ----------

on run argv
	-- A script editor passes something other than a list.
	if class of argv is not list then set argv to {}
	if (count of argv) is 0 then return exportWithDialogs("")

	set theVerb to item 1 of argv
	set theWords to rest of argv
	set eventSeconds to defaultEventSeconds
	set megabyteMilliseconds to 0
	repeat while (count of theWords) > 1
		if item 1 of theWords is "--timeout" then
			set eventSeconds to (item 2 of theWords) as integer
		else if item 1 of theWords is "--growth" then
			set megabyteMilliseconds to (item 2 of theWords) as integer
		else
			exit repeat
		end if
		set theWords to rest of rest of theWords
	end repeat

	if theVerb is "preflight" then
		return answer(theVerb, preflight(eventSeconds))
	else if theVerb is "list-albums" then
		return answer(theVerb, listAlbums(eventSeconds))
	else if theVerb is "album-counts" then
		needWords(theVerb, theWords, 1)
		return answer(theVerb, albumCounts(theWords, eventSeconds))
	else if theVerb is "item-ids" then
		needWords(theVerb, theWords, 1)
		return answer(theVerb, itemIds(item 1 of theWords, eventSeconds))
	else if theVerb is "item-facts" then
		needWords(theVerb, theWords, 1)
		set theRecords to {}
		repeat with wordReference in theWords
			set end of theRecords to factsRecord(contents of wordReference, eventSeconds)
		end repeat
		return answer(theVerb, theRecords)
	else if theVerb is "export-item" then
		needWords(theVerb, theWords, 2)
		return answer(theVerb, exportItem(item 1 of theWords, item 2 of theWords, eventSeconds, megabyteMilliseconds))
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
	repeat with entryReference in theEntries
		set thisEntry to contents of entryReference
		set thePath to joined(entryFolders of thisEntry, listSeparator)
		set end of theRecords to joined({entryId of thisEntry, thePath, entryName of thisEntry}, fieldSeparator)
	end repeat
	return theRecords
end listAlbums

-- One event an album. An album that is gone has no record.
on albumCounts(albumIds, eventSeconds)
	set theRecords to {}
	set countedSoFar to 0
	repeat with idReference in albumIds
		set albumId to contents of idReference
		set itemCount to countOfItems(albumId, eventSeconds)
		if itemCount is not missing value then set end of theRecords to joined({albumId, itemCount as text}, fieldSeparator)
		set countedSoFar to countedSoFar + 1
		log "skicyclerun: counted " & countedSoFar
	end repeat
	return theRecords
end albumCounts

-- Three events whatever the size of the album; the ids are asked for twice, so that the names are known to be theirs.
on itemIds(albumId, eventSeconds)
	repeat 3 times
		with timeout of eventSeconds seconds
			log "skicyclerun: at ids"
			tell application "Photos" to set idsBefore to id of media items of album id albumId
			log "skicyclerun: at names"
			tell application "Photos" to set theNames to filename of media items of album id albumId
			log "skicyclerun: at ids"
			tell application "Photos" to set idsAfter to id of media items of album id albumId
		end timeout
		if (count of idsBefore) is (count of theNames) and idsBefore is idsAfter then
			set theTotal to (count of idsBefore) as text
			return {theTotal, joined(idsBefore, fieldSeparator), joined(theNames, fieldSeparator)}
		end if
	end repeat
	error "The album kept changing while it was listed." number albumKeptChanging
end itemIds

-- The facts come first: an item that is gone says so at once. Without "using originals" Photos renders the current version.
on exportItem(itemId, theDirectory, eventSeconds, megabyteMilliseconds)
	set theFacts to factsRecord(itemId, eventSeconds)
	set exportSeconds to eventSeconds + secondsForSize(itemId, eventSeconds, megabyteMilliseconds)
	set theDestination to POSIX file theDirectory
	with timeout of exportSeconds seconds
		tell application "Photos"
			set theItem to media item id itemId
			export {theItem} to theDestination
		end tell
	end timeout
	return {theFacts}
end exportItem

-- What an item's size adds to the time its export may take. Logged, so that whoever called waits as long.
on secondsForSize(itemId, eventSeconds, megabyteMilliseconds)
	set theSize to missing value
	try
		with timeout of eventSeconds seconds
			tell application "Photos" to set theSize to size of media item id itemId
		end timeout
	on error errorText number errorNumber
		passOn(errorText, errorNumber)
	end try
	if class of theSize is not integer and class of theSize is not real then return 0
	set theMegabytes to round (theSize / 1000000)
	if theMegabytes < 1 then return 0
	log "skicyclerun: size " & theMegabytes
	return (theMegabytes * megabyteMilliseconds) div 1000
end secondsForSize

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
		repeat with keywordReference in theKeywords
			set end of cleanKeywords to cleaned(contents of keywordReference)
		end repeat
	end if
	set theFields to {cleaned(itemId), cleaned(theFilename), isoDate(theDate), theLatitude, theLongitude}
	set theFields to theFields & {decimalText(theAltitude), favoriteText, cleaned(theTitle), cleaned(theDescription)}
	set theFields to theFields & {joined(cleanKeywords, listSeparator), joined(refused, listSeparator)}
	return joined(theFields, fieldSeparator)
end factsRecord

-- A property that cannot be had (-1728), has another form (-1700, -1703) or that the item does not answer for (-1708) is
-- left out; anything else is about the whole item.
on passOn(errorText, errorNumber)
	if {-1728, -1700, -1703, -1708} does not contain {errorNumber} then error errorText number errorNumber
end passOn

on chooseAlbums(eventSeconds)
	set theEntries to countedEntries(eventSeconds)
	if (count of theEntries) is 0 then return {}
	set theChosen to entriesChosenFrom(theEntries, "Choose the albums to export:")
	set theRecords to {}
	repeat with entryReference in theChosen
		set end of theRecords to entryId of (contents of entryReference)
	end repeat
	return theRecords
end chooseAlbums


---------- Albums ----------

-- All albums, those in folders too, as records {entryId, entryFolders, entryName} in the order of Photos. A few events for
-- each folder, however many albums lie in it; the ids are asked for twice, so that the names are known to be theirs.
on albumEntries(eventSeconds)
	set albumsListed to 0
	repeat 3 times
		with timeout of eventSeconds seconds
			tell application "Photos"
				set idsBefore to id of every album
				set theNames to name of every album
				set idsAfter to id of every album
				set topFolders to every folder
			end tell
		end timeout
		if (count of idsBefore) is (count of theNames) and idsBefore is idsAfter then
			return entriesFrom(idsBefore, theNames, {}) & entriesInFolders(topFolders, {}, eventSeconds)
		end if
	end repeat
	error "The albums kept changing while they were listed." number albumKeptChanging
end albumEntries

-- The references that Photos itself returns reach nested folders; "folder id" finds only the top level.
on entriesInFolders(theFolders, thePath, eventSeconds)
	set theEntries to {}
	repeat with folderReference in theFolders
		set thisFolder to contents of folderReference
		try
			set theEntries to theEntries & entriesInFolder(thisFolder, thePath, eventSeconds)
		on error errorText number errorNumber
			if errorNumber is not -1728 then error errorText number errorNumber
			log "A folder was removed while the albums were listed."
		end try
	end repeat
	return theEntries
end entriesInFolders

on entriesInFolder(thisFolder, thePath, eventSeconds)
	repeat 3 times
		with timeout of eventSeconds seconds
			tell application "Photos"
				set folderTitle to name of thisFolder
				set idsBefore to id of every album of thisFolder
				set theNames to name of every album of thisFolder
				set idsAfter to id of every album of thisFolder
				set innerFolders to every folder of thisFolder
			end tell
		end timeout
		if (count of idsBefore) is (count of theNames) and idsBefore is idsAfter then
			set innerPath to thePath & {cleaned(folderTitle)}
			return entriesFrom(idsBefore, theNames, innerPath) & entriesInFolders(innerFolders, innerPath, eventSeconds)
		end if
	end repeat
	error "A folder kept changing while its albums were listed." number albumKeptChanging
end entriesInFolder

on entriesFrom(theIds, theNames, thePath)
	set theEntries to {}
	repeat with thisIndex from 1 to count of theIds
		set thisName to cleaned(item thisIndex of theNames)
		set end of theEntries to {entryId:cleaned(item thisIndex of theIds), entryFolders:thePath, entryName:thisName}
	end repeat
	set albumsListed to albumsListed + (count of theIds)
	log "skicyclerun: listed " & albumsListed
	return theEntries
end entriesFrom

-- The number of an album's items; missing value where it is gone.
on countOfItems(albumId, eventSeconds)
	try
		with timeout of eventSeconds seconds
			tell application "Photos" to set itemCount to count of media items of album id albumId
		end timeout
		return itemCount
	on error errorText number errorNumber
		if errorNumber is not -1728 then error errorText number errorNumber
		log "An album was removed while the albums were listed."
		return missing value
	end try
end countOfItems

-- Entries with their number of items, as entryCount, for a dialog.
on countedEntries(eventSeconds)
	set theEntries to {}
	set foundEntries to albumEntries(eventSeconds)
	repeat with entryReference in foundEntries
		set thisEntry to contents of entryReference
		set itemCount to countOfItems(entryId of thisEntry, eventSeconds)
		if itemCount is not missing value then set end of theEntries to thisEntry & {entryCount:itemCount}
	end repeat
	return theEntries
end countedEntries


---------- Dialogs ----------

-- A dialog belongs to the process that shows it, here osascript; without this it opens behind the terminal's window.
on comeToFront()
	try
		tell current application to activate
	on error errorText number errorNumber
		log "The dialog may be behind other windows: " & errorText & " (" & errorNumber & ")"
	end try
end comeToFront

-- Raises -128 when the person cancels. Every label is made unique by its number, because titles repeat.
on entriesChosenFrom(theEntries, thePrompt)
	set theLabels to {}
	set theNumber to 0
	repeat with entryReference in theEntries
		set thisEntry to contents of entryReference
		set theNumber to theNumber + 1
		set theTitle to joined((entryFolders of thisEntry) & {entryName of thisEntry}, " / ")
		set end of theLabels to (theNumber as text) & ". " & theTitle & " (" & (entryCount of thisEntry) & ")"
	end repeat
	comeToFront()
	set theAnswer to choose from list theLabels with title "Export from Photos" with prompt thePrompt OK button name "Export" with multiple selections allowed
	if theAnswer is false then error "Cancelled." number -128
	set theChosen to {}
	repeat with thisIndex from 1 to count of theLabels
		if theAnswer contains {item thisIndex of theLabels} then set end of theChosen to item thisIndex of theEntries
	end repeat
	return theChosen
end entriesChosenFrom

on chooseFolderPath(thePrompt, startPath)
	comeToFront()
	if startPath is not "" and isFolder(startPath) then
		set theFolder to choose folder with prompt thePrompt default location ((POSIX file startPath) as alias)
	else
		set theFolder to choose folder with prompt thePrompt
	end if
	return POSIX path of theFolder
end chooseFolderPath


---------- The stand-alone export ----------

on exportWithDialogs(givenPath)
	openLog()
	try
		return exportChosenAlbums(exportFolder(givenPath))
	on error errorText number errorNumber
		if errorNumber is -128 then
			note("Cancelled. What was exported so far is kept.")
			return "Cancelled."
		end if
		note("Error: " & errorText & " (" & errorNumber & ")")
		if errorNumber is -1743 then
			set theAdvice to "Allow it in System Settings > Privacy & Security > Automation > your terminal > Photos."
		else
			set theAdvice to "What was exported so far is kept."
		end if
		comeToFront()
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
			note("Export folder not found: " & thePath)
			set theQuestion to "The export folder does not exist:" & return & thePath
			comeToFront()
			set theReply to display dialog theQuestion buttons {"Cancel", "Create It", "Choose Another..."} default button "Choose Another..." cancel button "Cancel" with icon caution
			if button returned of theReply is "Create It" then
				do shell script "/bin/mkdir -p " & quoted form of thePath
			else
				set thePath to chooseFolderPath("Choose the folder to export to:", "")
			end if
		else if not isWritable(thePath) then
			note("Export folder cannot be written: " & thePath)
			set theQuestion to "The export folder cannot be written:" & return & thePath
			comeToFront()
			display dialog theQuestion buttons {"Cancel", "Choose Another..."} default button "Choose Another..." cancel button "Cancel" with icon caution
			set thePath to chooseFolderPath("Choose the folder to export to:", "")
		else
			set theQuestion to "Albums will be exported to:" & return & thePath
			comeToFront()
			set theReply to display dialog theQuestion buttons {"Cancel", "Choose Another...", "Continue"} default button "Continue" cancel button "Cancel"
			if button returned of theReply is "Continue" then
				note("Export folder: " & thePath)
				return thePath
			end if
			set thePath to chooseFolderPath("Choose the folder to export to:", thePath)
		end if
	end repeat
end exportFolder

on exportChosenAlbums(basePath)
	set theEntries to countedEntries(defaultEventSeconds)
	if (count of theEntries) is 0 then
		note("Photos has no albums.")
		comeToFront()
		display dialog "Photos has no albums to export." buttons {"OK"} default button "OK"
		return "Photos has no albums."
	end if
	set theChosen to entriesChosenFrom(theEntries, "Choose the albums to export:")
	set takenNames to {}
	set {exportedCount, failedCount, theIndex} to {0, 0, 0}
	repeat with entryReference in theChosen
		set thisEntry to contents of entryReference
		set theIndex to theIndex + 1
		set theFolderName to freeName(folderNameFor(entryName of thisEntry), takenNames)
		set end of takenNames to theFolderName
		set theFolderPath to basePath & "/" & theFolderName
		note("Album " & theIndex & " of " & (count of theChosen) & ": " & (entryName of thisEntry) & " -> " & theFolderPath)
		try
			do shell script "/bin/mkdir -p " & quoted form of theFolderPath
			set {albumExported, albumFailed} to exportAlbum(entryId of thisEntry, theFolderPath)
			set exportedCount to exportedCount + albumExported
			set failedCount to failedCount + albumFailed
			note("Completed: " & (entryName of thisEntry) & " (" & albumExported & " photos exported)")
			if albumFailed > 0 then note("Not exported from " & (entryName of thisEntry) & ": " & albumFailed & " photos")
		on error errorText number errorNumber
			if errorNumber is -128 or errorNumber is -1743 then error errorText number errorNumber
			set failedCount to failedCount + (entryCount of thisEntry)
			note("Error in album " & (entryName of thisEntry) & ": " & errorText & " (" & errorNumber & ")")
		end try
	end repeat
	set theSummary to "Exported: " & exportedCount & ", failed: " & failedCount & ", albums: " & (count of theChosen) & "."
	note(theSummary)
	comeToFront()
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
	repeat with idReference in theIds
		set itemId to contents of idReference
		set secondsLeft to albumSeconds - ((current date) - theStart)
		if secondsLeft < 1 then
			set leftCount to (count of theIds) - exportedCount - failedCount
			note("Error: the album took longer than " & albumSeconds & " seconds; " & leftCount & " photos were left out.")
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
			note("Photo " & (exportedCount + failedCount) & " of " & (count of theIds))
		on error errorText number errorNumber
			if errorNumber is -128 or errorNumber is -1743 then error errorText number errorNumber
			set failedCount to failedCount + 1
			note("Error in photo " & (exportedCount + failedCount) & " of " & (count of theIds) & ": " & errorText & " (" & errorNumber & ")")
		end try
	end repeat
	return {exportedCount, failedCount}
end exportAlbum

-- In the folder that the environment names only if it is there: a disk that is not connected is not made up for.
on openLog()
	set logPath to ""
	try
		set logPath to do shell script "if [ -d \"$SKICYCLERUN_LIB_ROOT\" ]; then d=\"$SKICYCLERUN_LIB_ROOT/logs\"; else d=\"$HOME/Library/Logs/skicyclerun\"; fi; mkdir -p \"$d\" && printf '%s/osxPhotoExporter_%s.log' \"$d\" \"$(date +%Y%m%d_%H%M%S)\""
	on error errorText
		log "There is no log file: " & errorText
	end try
end openLog

-- A line for whoever watches, and for the log file.
on note(theLine)
	log theLine
	if logPath is "" then return
	set theText to onOneLine(theLine)
	try
		do shell script "printf '%s %s\\n' \"$(date +%Y-%m-%dT%H:%M:%S)\" " & quoted form of theText & " >> " & quoted form of logPath
	on error errorText
		set logPath to ""
		log "The log file cannot be written any more: " & errorText
	end try
end note

-- Titles may hold line breaks and other control characters.
on onOneLine(theText)
	set theCodes to {}
	set textCodes to codesOf(theText)
	repeat with codeReference in textCodes
		set theCode to contents of codeReference
		if theCode < 32 then set theCode to 32
		set end of theCodes to theCode
	end repeat
	if (count of theCodes) is 0 then return ""
	return string id theCodes
end onOneLine

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
	repeat with codeReference in titleCodes
		set theCode to contents of codeReference
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
	repeat with codeReference in theCodes
		set theCode to contents of codeReference
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
		repeat with codeReference in theCodes
			set theCode to contents of codeReference
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
